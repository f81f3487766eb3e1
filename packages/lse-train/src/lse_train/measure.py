"""Measuring a model: accuracy, InvE, accuracy by range of scale, and its canonicalizers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.card import card_of
from lse_core.errors import LSEError
from lse_core.metrics import invariance_error
from lse_core.modes import evaluating
from lse_core.preprocess import Preprocess
from lse_core.random import random_log_slopes
from lse_core.resample import scale
from lse_core.separable import SeparableWarp
from lse_dec.adaptation import AdaptedModel, observe
from lse_dec.checkpoint import load
from lse_dec.monitor import displacement
from lse_dec.solvers import Code
from lse_train.accuracy import accuracy_per_scale
from lse_train.config import ConfigError
from lse_train.seeding import generator
from lse_train.sources import Source, build_data, preprocess_for

__all__ = ["evaluate", "first_image", "probe"]

WARPS = 2  # random warps an image where the data set has no variants of its own

Numbers = dict[str, Any]


def evaluate(
    model: nn.Module | str | Path,
    data: Any,
    options: Mapping[str, Any] | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    brackets: Sequence[tuple[float, float]] = (),
    warp_ratio: float = 2.0,
    seed: int = 0,
    batch_size: int = 200,
    workers: int = 0,
    device: torch.device | str = "cpu",
    trust: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> Numbers:
    """Measure a classifier.

    Args:
        model: a module, left in eval mode on `device`; or the folder of a run or of `lse_dec.save`.
        data: name of a data set plugin, or a data set (see `lse_train.config.Data`).
        options: keywords of the plugin.
        mean: normalisation by channel; None for either: what the model's card says, else as in training.
        std: see `mean`.
        brackets: ranges of scale (low, high) for accuracies of their own. A data set that knows one
            scale an image is split by them; one that is generated is generated anew within each.
        warp_ratio: InvE is measured between variants of an image where the data set has them (see
            `_variants`), elsewhere between each image and two random warps of it with slopes within
            [1/warp_ratio, warp_ratio].
        seed: of those warps.
        batch_size: images at once.
        workers: processes that read a map-style data set.
        device: where to compute.
        trust: of a folder, see `lse_dec.load`.
        on_batch: called with (batches done, batches in all).

    Returns:
        "images"; "accuracy" in [0, 1], None without labels; "invariance_error", Eq. 24 on the softmax,
        squared L2, in [0, 2]; "accuracy_by_scale" by bracket where asked for (and
        "invariance_error_by_scale" where each has images of its own); for adapted models "sites", by
        name: "displacement_pixels", the mean distance along an axis that the warp moves a point, in
        pixels of the image; "residual" and "not_converged", the solver's mean residual and the share of
        solves that did not converge, None without a solve.

    Raises:
        LSEError: nothing of that name, images that the model cannot take, or an empty data set.
    """
    what = f"data set {data!r}" if isinstance(data, str) else f"data set {type(data).__name__}"
    module: nn.Module = model if isinstance(model, nn.Module) else load(model, trust=trust)
    known = card_of(module).preprocess
    built = build_data(data, dict(options or {}), known) if isinstance(data, str) else data
    source, place = Source(built, what, workers=workers), torch.device(device)
    module = module.to(place).eval()
    made = preprocess_for(first_image(source, place)[0], built, module, mean, std)
    dtype = next(module.parameters(), torch.empty(0)).dtype
    probe(module, source, made, what, dtype, place)
    runner = _Runner(module, made, warp_ratio, seed, batch_size, place, dtype, on_batch)
    found = runner.measure(source)
    return {**found, **_by_scale(runner, source, brackets)} if brackets else found


def _by_scale(runner: _Runner, source: Source, brackets: Sequence[tuple[float, float]]) -> Numbers:
    data = source.data
    scales = next(
        (s for s in (getattr(data, n, None) for n in ("factors", "scales")) if isinstance(s, Tensor)), None
    )
    names = [f"{low:g}-{high:g}" for low, high in brackets]
    if isinstance(scales, Tensor) and scales.ndim == 1:
        if source.labels is None:
            raise ConfigError("accuracy by scale wants labels and scales as tensors of the data set")
        split = accuracy_per_scale(runner.predicted.cpu(), source.labels.cpu(), scales.cpu(), brackets)
        return {"accuracy_by_scale": dict(zip(names, split.accuracy.tolist(), strict=True))}
    from lse_data import DigitsConfig, load_digits_dataset

    config = getattr(data, "config", None)
    if not isinstance(config, DigitsConfig):
        raise ConfigError("accuracy by scale needs a data set with the factors of its images")
    parts = []
    for bracket in brackets:
        made = load_digits_dataset(DigitsConfig(**{**config.plain(), "scale": bracket}))
        parts.append(runner.measure(Source(made, f"scales {bracket}")))
    return {
        f"{key}_by_scale": {name: part[key] for name, part in zip(names, parts, strict=True)}
        for key in ("accuracy", "invariance_error")
    }


def _variants(data: Any) -> tuple[int, int, bool]:
    """Number of variants of each image, the place of the reference among them, whether accuracy omits it.

    The data set's `groups`, (N,), are equal for the variants of one image, which are neighbours. The
    reference is the variant at factor 1 where the data set has `factors`, else the first one. Accuracy
    leaves it out where `config.reference` says that it was made only to compare the others with it.
    """
    groups = getattr(data, "groups", None)
    if not isinstance(groups, Tensor) or len(groups) == 0:
        return 1, 0, False
    counts = groups.unique_consecutive(return_counts=True)[1]
    if len(counts.unique()) > 1:
        raise ConfigError("images of the data set differ in the number of their variants: no InvE (Eq. 24)")
    count = int(counts[0])
    factors = getattr(data, "factors", None)
    reference = 0
    if isinstance(factors, Tensor):
        reference = next((i for i, f in enumerate(factors[:count].tolist()) if f == 1.0), 0)
    omitted = bool(getattr(getattr(data, "config", None), "reference", False)) and count > 1
    return count, reference, omitted


@dataclass
class _Runner:
    """A model with all that measuring it takes."""

    model: nn.Module
    normal: Preprocess
    warp_ratio: float
    seed: int
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    on_batch: Callable[[int, int], None] | None
    predicted: Tensor = field(default_factory=lambda: torch.empty(0))

    @torch.no_grad()
    def measure(self, source: Source) -> Numbers:
        """The numbers of one data set; all that is found stays on the device until the last batch."""
        variants, reference, left_out = _variants(source.data)
        size = max(1, self.batch_size // variants) * variants  # an image's variants stay together
        picks = list(torch.arange(len(source)).split(size))
        others = [v for v in range(variants) if v != reference]
        counted, errors, seen, sites = [], [], [], list[dict[str, Tensor]]()
        for number, (images, labels) in enumerate(source.read(picks, self.device)):
            x = self.normal.normalise(images.to(self.dtype))
            watching: AbstractContextManager[Mapping[str, Any]]
            watching = observe(self.model) if isinstance(self.model, AdaptedModel) else nullcontext({})
            with watching as record:
                probabilities = self.model(x).softmax(-1)
            sites.append({name: _of_site(found, x) for name, found in record.items()})
            kept = labels >= 0
            if variants > 1:
                grouped = probabilities.unflatten(0, (-1, variants))
                if left_out:
                    kept.view(-1, variants)[:, reference] = False
                one, rest = grouped[:, reference], grouped[:, others]
                errors.append(invariance_error(one, rest, reduction="none").flatten())
            else:
                errors.append(self._under_warps(x, probabilities, number))
            seen.append(probabilities.argmax(-1))
            counted.append(torch.stack([(seen[-1] == labels) & kept, kept]))
            if self.on_batch is not None:
                self.on_batch(number + 1, len(picks))
        self.predicted = torch.cat(seen)
        told = [torch.cat(counted, 1).double().sum(1), torch.cat(errors).double().mean()[None]]
        told += [values for batch in sites for values in batch.values()]
        right, of, error, *rest = torch.cat(told).tolist()  # the one time that the device is waited for
        return {
            "images": len(source),
            "accuracy": right / of if of else None,
            "invariance_error": error,
            **_means(list(sites[0]), rest, [len(pick) for pick in picks]),
        }

    def _under_warps(self, x: Tensor, probabilities: Tensor, number: int) -> Tensor:
        draws = random_log_slopes(
            WARPS * len(x), 4, self.warp_ratio, generator=generator(self.seed, "augment", number)
        )
        moved = scale(x.repeat_interleave(WARPS, 0), SeparableWarp.from_log_slopes(draws.to(x)))
        answers = self.model(moved).softmax(-1).unflatten(0, (-1, WARPS))
        return invariance_error(probabilities, answers, reduction="none").flatten()


SITE = ("displacement_pixels", "residual", "not_converged")


def _of_site(found: Any, x: Tensor) -> Tensor:
    """What a canonicalizer did for `x`, (b, C, H, W): means of `SITE`, float64 (3,), NaN without a solve."""
    # half of the warp's points move along either axis
    away = displacement(found).mean().double() * ((x.shape[-1] + x.shape[-2]) / 2 - 1)
    if found.solution is None:
        return torch.stack([away, *2 * [away.new_tensor(math.nan)]])
    codes, finite = found.solution.codes, found.solution.codes != Code.NOT_FINITE
    # failed solves are counted on their own: an infinite mean would say nothing of the others
    residual = torch.where(finite, found.solution.residual, 0).sum() / finite.sum()
    residual = residual.double().nan_to_num(nan=math.inf)
    return torch.stack([away, residual, 1 - (codes == Code.CONVERGED).float().mean().double()])


def _means(names: Sequence[str], values: Sequence[float], images: Sequence[int]) -> Numbers:
    """{"sites": ...}, each image weighing the same, or nothing for a model without.

    Args:
        names: of the sites.
        values: the numbers of `_of_site`, by batch, then by site.
        images: of each batch.
    """
    sums = [[0.0] * len(SITE) for _ in names]
    for number, value in enumerate(values):
        batch, rest = divmod(number, len(names) * len(SITE))
        sums[rest // len(SITE)][rest % len(SITE)] += value * images[batch]
    means = [[None if math.isnan(v) else v / sum(images) for v in own] for own in sums]
    found = {name: dict(zip(SITE, own, strict=True)) for name, own in zip(names, means, strict=True)}
    return {"sites": found} if names else {}


def first_image(source: Source, device: torch.device) -> tuple[Tensor, int]:
    """The data set's first image, float (1, C, H, W) in [0, 1], and its label, -1 for none."""
    images, labels = next(iter(source.read([torch.tensor([0])], device)))
    return images, int(labels[0])


def probe(
    model: nn.Module, source: Source, normal: Preprocess, what: str, dtype: torch.dtype, device: torch.device
) -> int:
    """Number of classes, from one image put through the model, which so is known to take it.

    Raises:
        ConfigError: it does not take it, or answers with no class scores, or too few for the labels.
    """
    image = first_image(source, device)[0]
    try:
        with torch.no_grad(), evaluating(model):
            out = model(normal.normalise(image.to(dtype)))
    except (AssertionError, RuntimeError, LSEError) as error:
        raise ConfigError(
            f"the model cannot take images of {what}, {tuple(image.shape[1:])}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(out, Tensor) or out.ndim != 2:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ConfigError(f"the model must answer with class scores (batch, classes); it gives {got}")
    top = -1 if source.labels is None else int(source.labels.max())
    if top >= out.shape[1]:
        raise ConfigError(f"{what} has labels up to {top}; the model tells {out.shape[1]} classes apart")
    return out.shape[1]
