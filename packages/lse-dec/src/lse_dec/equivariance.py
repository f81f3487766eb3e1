"""Eq. 5 as a training signal for a whole adapted model: h(S(F; g)) = g h(F) at every site, without labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, ShapeError
from lse_core.random import random_log_slopes
from lse_core.separable import SeparableWarp
from lse_dec.adaptation import AdaptedModel
from lse_dec.arguments import call_with
from lse_dec.backbones import IMAGE
from lse_dec.backbones.probe import evaluating
from lse_dec.losses import canonicalizer_equivariance_loss, warp_distance
from lse_dec.settings import takes

__all__ = ["Entered", "entering", "equivariance_by_site", "equivariance_loss"]


class Entered(NamedTuple):
    """What entered a site's canonicalizer.

    Attributes:
        features: (B, C, H, W), or (B, H, W, C) if `channels_last`; tokens come as such a map, without their
            prefix, and with feed="image" it is the image.
        channels_last: where the channels are.
    """

    features: Tensor
    channels_last: bool


@contextmanager
def entering(adapted: AdaptedModel) -> Iterator[dict[str, Entered]]:
    """Collect what enters each site's canonicalizer at its first call while the block runs.

    For `equivariance_loss`, to spare it a forward pass of its own:

        with entering(adapted) as entered:
            loss = criterion(adapted(images), labels)
        loss = loss + equivariance_loss(adapted, entered=entered)

    Yields:
        A dict by the name of the site, filled by the first forward pass.
    """
    entered: dict[str, Entered] = {}

    def keeping(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entered.setdefault(name, Entered(args[0], bool(kwargs.get("channels_last", False))))

        return hook

    handles = [
        module.register_forward_pre_hook(keeping(name), with_kwargs=True)
        for name, module in adapted.canonicalizers.items()
    ]
    try:
        yield entered
    finally:
        for handle in handles:
            handle.remove()


def equivariance_loss(
    adapted: nn.Module,
    images: Tensor | None = None,
    *,
    entered: Mapping[str, Entered] | None = None,
    generator: torch.Generator | None = None,
    ratio: float = 2.5,
    segments: int = 4,
    distribution: str = "log_uniform",
    steps: tuple[int, int] | None = (2, 6),
    centre: float = 0.0,
    frame: str = "image",
    rows: Tensor | None = None,
    total: int | None = None,
) -> Tensor:
    """Eq. 5 for all canonicalizers of a model: the mean over its sites, to be added to the loss of a task.

    Draws one random warp g an image, moves what enters each site by it, and asks that the canonicalizer's
    answer move by g too. Only canonicalizers get a gradient: their input is held fixed. The backbone is not
    changed either, since the pass that this makes for latent sites runs in eval mode and without gradient; a
    site at the image alone needs no pass.

    Several processes or several small batches in one step: draw for all of the step's images and take
    `rows` of them, with generators in the same state everywhere. Then the mean over parts of equal size is
    what the whole batch would give (but for `centre`, which is about each part's own mean answer). Under
    `DistributedDataParallel` give the wrapped model, call it for the task's loss first, and go backward once,
    through the sum of both; where there is no such call, wrap a module whose forward returns this loss.

    Args:
        adapted: what `lse_dec.adapt` returned, or a parallel or compiled wrapper of it.
        images: (B, C, H, W) floating images, as the model takes them.
        entered: what entered the sites in a pass that was made anyway, see `entering`; instead of `images`.
        generator: source of randomness, on the CPU; None is torch's own.
        ratio: the slopes of g lie within [1/ratio, ratio]; above 1.
        segments: segments an axis of g, at least 1.
        distribution: how g is drawn, see `lse_core.random.random_log_slopes`.
        steps: least and greatest number of solver steps, one number drawn each time; None takes the
            canonicalizers' own, and so do those that do not iterate.
        centre: weight of the mean answer's distance from the identity, see
            `lse_dec.losses.canonicalizer_equivariance_loss`; at least 0.
        frame: where warps are compared, "image" or "canonical", see there.
        rows: (B,) int64, the places of these images among all of the step's.
        total: how many images the step has; goes with `rows`.

    Returns:
        Scalar, float32 (float64 for float64 features), at least 0; 1 is what an answer that ignores the
        picture costs.

    Raises:
        LSEError: not an adapted model, no canonicalizer with parameters, no input or two, or a setting out
            of range.
        ShapeError: `rows` are not one for each image.
        UnknownNameError: no such distribution or frame.
    """
    losses = equivariance_by_site(
        adapted,
        images,
        entered=entered,
        generator=generator,
        ratio=ratio,
        segments=segments,
        distribution=distribution,
        steps=steps,
        centre=centre,
        frame=frame,
        rows=rows,
        total=total,
    )
    return torch.stack(list(losses.values())).mean()


def equivariance_by_site(
    adapted: nn.Module,
    images: Tensor | None = None,
    *,
    entered: Mapping[str, Entered] | None = None,
    generator: torch.Generator | None = None,
    ratio: float = 2.5,
    segments: int = 4,
    distribution: str = "log_uniform",
    steps: tuple[int, ...] | None = (2, 6),
    centre: float = 0.0,
    frame: str = "image",
    rows: Tensor | None = None,
    total: int | None = None,
) -> dict[str, Tensor]:
    """As `equivariance_loss`, a scalar for each site whose canonicalizer has parameters.

    All sites meet the same warps and the same number of steps.
    """
    model = _unwrapped(adapted)
    if steps is not None and not (len(steps) == 2 and 1 <= steps[0] <= steps[1]):
        raise LSEError(f"steps must be two numbers with 1 <= least <= greatest, or None; got {steps!r}")
    if not centre >= 0.0:
        raise LSEError(f"centre must be at least 0; got {centre!r}")
    learning = [n for n, m in model.canonicalizers.items() if any(True for _ in m.parameters())]
    if not learning:
        raise LSEError(
            f"no canonicalizer of {', '.join(model.names) or 'the model'} has parameters that Eq. 5 could "
            "train; adapt with another one, such as canonicalizer='dec'"
        )
    entered = _entered(model, images, entered, learning)
    batch = len(entered[learning[0]].features)
    if (rows is None) != (total is None):
        raise LSEError("rows and total go together: which of how many images of the step these are")
    if rows is not None and rows.shape != (batch,):
        raise ShapeError(f"rows must be one for each of {batch} images; got shape {tuple(rows.shape)}")
    taken = None if steps is None else int(torch.randint(steps[0], steps[1] + 1, (), generator=generator))
    drawn = random_log_slopes(
        batch if total is None else total, segments, ratio, distribution=distribution, generator=generator
    )
    losses = {}
    for name in learning:
        canonicalizer, (features, channels_last) = model.canonicalizers[name], entered[name]
        dtype = torch.promote_types(features.dtype, torch.float32)
        mine = drawn if rows is None else drawn[rows.cpu()]
        g = SeparableWarp.from_log_slopes(mine.to(features.device, dtype))
        options: dict[str, Any] = {"steps": taken} if taken and takes(canonicalizer.forward, "steps") else {}
        error = canonicalizer_equivariance_loss(
            canonicalizer,
            features.detach(),
            g,
            channels_last=channels_last,
            frame=frame,
            centre=centre,
            **options,
        )
        if batch < len(drawn):
            # Eq. 5 is relative to the mean size of its warps: of the whole step's, wherever an image is
            error = error * (_size(g) / _size(SeparableWarp.from_log_slopes(drawn.to(g.x.knots))))
        losses[name] = error
    return losses


def _unwrapped(model: nn.Module) -> AdaptedModel:
    found: Any = model
    while not isinstance(found, AdaptedModel):
        inner = getattr(found, "module", None) or getattr(found, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            raise LSEError(f"Eq. 5 needs what lse_dec.adapt returned; got {type(model).__name__}")
        found = inner
    return found


def _entered(
    model: AdaptedModel, images: Tensor | None, entered: Mapping[str, Entered] | None, names: list[str]
) -> Mapping[str, Entered]:
    """What entered the sites called `names`."""
    if (images is None) == (entered is None):
        raise LSEError("give either images or what entered the sites (entered=)")
    if entered is None:
        assert images is not None
        if names == [IMAGE]:
            return {IMAGE: Entered(images, False)}
        with torch.no_grad(), evaluating(model), entering(model) as entered:
            call_with(model, images)
    missing = [name for name in names if name not in entered]
    if missing:
        raise LSEError(f"nothing entered the sites {', '.join(missing)}: no forward pass reached them")
    return entered


def _size(g: SeparableWarp) -> Tensor:
    return warp_distance(g, SeparableWarp.identity(g.batch, device=g.device, dtype=g.dtype)).mean()
