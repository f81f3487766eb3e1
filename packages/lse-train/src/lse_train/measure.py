"""Measuring a model: accuracy, InvE, accuracy by scale, and what its canonicalizers do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.card import card_of
from lse_core.errors import LSEError
from lse_core.metrics import accuracy_per_scale, invariance_error
from lse_core.preprocess import Preprocess
from lse_core.random import random_log_slopes
from lse_core.resample import scale
from lse_core.separable import SeparableWarp
from lse_dec.adaptation import AdaptedModel, observe
from lse_dec.checkpoint import load
from lse_dec.monitor import summarise
from lse_dec.observation import Observation
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
    what = repr(data) if isinstance(data, str) else type(data).__name__
    module: nn.Module = model if isinstance(model, nn.Module) else load(model, trust=trust)
    known = card_of(module).preprocess
    built = build_data(data, dict(options or {}), known) if isinstance(data, str) else data
    source = Source(built, f"data set {what}", workers=workers)
    if source.endless:
        raise ConfigError(f"data set {what} is endless; measure on one that has a length")
    model = module.to(device).eval()
    parameter = next(model.parameters(), torch.empty(0))
    image = first_image(source, torch.device(device))[0]
    made = preprocess_for(image, built, model, mean, std)
    probe(model, source, made, f"data set {what}", parameter.dtype, torch.device(device))
    runner = _Runner(
        model, made, warp_ratio, seed, batch_size, torch.device(device), parameter.dtype, on_batch
    )
    found = runner.measure(source)
    if brackets:
        found |= _by_scale(runner, source, brackets)
    return found


def _by_scale(runner: _Runner, source: Source, brackets: Sequence[tuple[float, float]]) -> Numbers:
    data = source.data
    scales = next(
        (s for s in (getattr(data, n, None) for n in ("factors", "scales")) if isinstance(s, Tensor)), None
    )
    names = [f"{low:g}-{high:g}" for low, high in brackets]
    if isinstance(scales, Tensor) and scales.ndim == 1:
        if source.labels is None or runner.predicted is None:
            raise ConfigError("accuracy by scale wants labels and scales as tensors of the data set")
        split = accuracy_per_scale(runner.predicted, source.labels.cpu(), scales.cpu(), brackets)
        return {"accuracy_by_scale": dict(zip(names, map(float, split.accuracy), strict=True))}
    config = getattr(data, "config", None)
    if config is None or not hasattr(config, "scale"):
        raise ConfigError("accuracy by scale wants a data set that knows the scale of its images")
    from lse_train.data.cache import load_digits_dataset

    parts = []
    for bracket in brackets:
        made = load_digits_dataset(replace(config, scale=bracket))
        parts.append(runner.measure(Source(made, f"scales {bracket}")))
    return {
        f"{key}_by_scale": {name: part[key] for name, part in zip(names, parts, strict=True)}
        for key in ("accuracy", "invariance_error")
    }


def _variants(data: Any) -> tuple[int, int, bool]:
    """How many neighbours are variants of one image; which is its reference; whether accuracy omits that.

    Told by `groups`, (N,), equal for the variants of an image. The reference is the one at factor 1 where
    the data set tells `factors`, else the first. Accuracy omits it where `config.reference` says that it
    was made only to compare with.
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


class _Runner:
    """A model with all that measuring it takes."""

    def __init__(
        self,
        model: nn.Module,
        normal: Preprocess,
        warp_ratio: float,
        seed: int,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        self.model, self.normal, self.warp_ratio, self.seed = model, normal, warp_ratio, seed
        self.batch_size, self.device, self.dtype, self.on_batch = batch_size, device, dtype, on_batch
        self.predicted: Tensor | None = None

    @torch.no_grad()
    def measure(self, source: Source) -> Numbers:
        """The numbers of one data set."""
        variants, reference, left_out = _variants(source.data)
        size = max(1, self.batch_size // variants) * variants  # an image's variants stay together
        picks = list(torch.arange(len(source)).split(size))
        right, errors, seen, sites = [], [], [], _Sites(self.model)
        for number, (images, labels) in enumerate(source.read(picks, self.device)):
            x = self.normal.normalise(images.to(self.dtype))
            with sites.watching(x):
                probabilities = self.model(x).softmax(-1)
            kept = torch.ones_like(labels, dtype=torch.bool)
            if variants > 1:
                grouped = probabilities.unflatten(0, (-1, variants))
                kept.view(-1, variants)[:, reference] = not left_out
                others = [v for v in range(variants) if v != reference]
                one, rest = grouped[:, reference], grouped[:, others]
                errors.append(invariance_error(one, rest, reduction="none").flatten())
            else:
                errors.append(self._under_warps(x, probabilities, number))
            classes = probabilities.argmax(-1)
            right.append((classes == labels)[kept & (labels >= 0)])
            seen.append(classes.cpu())
            if self.on_batch is not None:
                self.on_batch(number + 1, len(picks))
        hits, self.predicted = torch.cat(right), torch.cat(seen)
        return {
            "images": len(source),
            "accuracy": float(hits.double().mean()) if len(hits) else None,
            "invariance_error": float(torch.cat(errors).double().mean()),
            **sites.result(),
        }

    def _under_warps(self, x: Tensor, probabilities: Tensor, number: int) -> Tensor:
        draws = random_log_slopes(
            WARPS * len(x), 4, self.warp_ratio, generator=generator(self.seed, "augment", number)
        )
        moved = scale(x.repeat_interleave(WARPS, 0), SeparableWarp.from_log_slopes(draws.to(x)))
        answers = self.model(moved).softmax(-1).unflatten(0, (-1, WARPS))
        return invariance_error(probabilities, answers, reduction="none").flatten()


class _Sites:
    """Means of what canonicalizers do, over batches."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model if isinstance(model, AdaptedModel) else None
        self.sums: dict[str, dict[str, float]] = {}
        self.images = 0

    def watching(self, x: Tensor) -> ExitStack:
        """Collect the answers to `x`, normalised images (b, C, H, W), while the block runs."""
        stack = ExitStack()
        if self.model is not None:
            record = stack.enter_context(observe(self.model))
            stack.callback(self._add, record, x)
        return stack

    def _add(self, record: Mapping[str, Observation], x: Tensor) -> None:
        self.images += len(x)
        for name, found in record.items():
            summary, sums = summarise(found), self.sums.setdefault(name, {})
            # half of the warp's points move along either axis
            side = (x.shape[-1] + x.shape[-2]) / 2 - 1
            values = {"displacement_pixels": summary.displacement * side}
            if summary.residual is not None and summary.converged is not None:
                values |= {"residual": summary.residual, "not_converged": 1 - summary.converged}
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + value * len(x)

    def result(self) -> Numbers:
        """{"sites": ...}, or nothing for a model without."""
        if self.model is None:
            return {}
        keys = ("displacement_pixels", "residual", "not_converged")
        return {
            "sites": {
                name: {key: sums[key] / self.images if key in sums else None for key in keys}
                for name, sums in self.sums.items()
            }
        }


def first_image(source: Source, device: torch.device) -> tuple[Tensor, int]:
    """The data set's first image, float (1, C, H, W) in [0, 1], and its label, -1 for none."""
    if source.endless:
        images, labels = source.sample(1, 0, 0, device)
    else:
        images, labels = next(iter(source.read([torch.tensor([0])], device)))
    return images[:1], int(labels[0])


def probe(
    model: nn.Module,
    source: Source,
    normal: Preprocess,
    what: str,
    dtype: torch.dtype,
    device: torch.device,
) -> int:
    """Number of classes, from one image put through the model, which so is known to take it.

    Raises:
        ConfigError: it does not take it, or answers with no class scores, or too few for the labels.
    """
    image = first_image(source, device)[0]
    was = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            out = model.eval()(normal.normalise(image.to(dtype)))
    except (AssertionError, RuntimeError, LSEError) as error:
        raise ConfigError(
            f"the model cannot take images of {what}, {tuple(image.shape[1:])}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    finally:
        for module, training in was.items():
            module.training = training
    if not isinstance(out, Tensor) or out.ndim != 2:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ConfigError(f"the model must answer with class scores (batch, classes); it gives {got}")
    top = -1 if source.labels is None else int(source.labels.max())
    if top >= out.shape[1]:
        raise ConfigError(f"{what} has labels up to {top}; the model tells {out.shape[1]} classes apart")
    return out.shape[1]
