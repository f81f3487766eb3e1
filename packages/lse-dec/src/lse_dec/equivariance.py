"""Eq. 5 as a training signal for a whole adapted model: h(S(F; g)) = g h(F) at every site, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, ShapeError, unknown_name
from lse_core.modes import evaluating
from lse_core.moved import moved_names
from lse_core.random import random_log_slopes
from lse_core.separable import SeparableWarp
from lse_core.settings import takes
from lse_dec.adapted import AdaptedModel
from lse_dec.arguments import call_with
from lse_dec.backbones import IMAGE
from lse_dec.losses import canonicalizer_equivariance_loss, warp_distance
from lse_dec.observation import Entered, Observation, observe

__all__ = ["Entered", "equivariance_by_site", "equivariance_loss"]


def equivariance_loss(
    adapted: nn.Module,
    images: Tensor | None = None,
    *,
    entered: Mapping[str, Observation | Entered] | None = None,
    generator: torch.Generator | None = None,
    ratio: float = 2.5,
    segments: int = 4,
    distribution: str = "log_uniform",
    steps: tuple[int, int] | None = (2, 6),
    centre: float = 0.0,
    prior: float = 0.0,
    frame: str = "image",
    rows: Tensor | None = None,
    total: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Eq. 5 for all canonicalizers of a model: the mean over its sites, to be added to the loss of a task.

    Draws a random warp g for each image, moves what enters each site by it, and asks that the canonicalizer's
    answer move by g too. Only canonicalizers get a gradient, because their input is held fixed. Where a pass
    of the model is needed to find what enters latent sites, it runs in eval mode and without gradient. A site
    at the image alone needs none.

    For several processes, or several small batches in one step: give all of them generators in the same
    state, the number of images of the whole step as `total`, and the places of their own images as `rows`.
    Then the mean over parts of equal size is what the whole batch would give, except for `centre`, which uses
    each part's own mean answer. Under `DistributedDataParallel` give the wrapped model, call it for the
    task's loss first, and go backward once, through the sum of both losses. Where there is no such call, wrap
    a module whose forward returns this loss.

    Args:
        adapted: what `lse_dec.adapt` returned, or a parallel or compiled wrapper of it.
        images: (B, C, H, W) floating images, as the model takes them.
        entered: what entered the sites in a pass that was made anyway, the record of
            `lse_dec.observe(adapted, first=True)`; instead of `images`. A value may be an `Entered` too.
        generator: source of randomness, on the CPU; None is torch's own.
        ratio: the slopes of g lie within [1/ratio, ratio]; above 1.
        segments: segments an axis of g, at least 1.
        distribution: how g is drawn, see `lse_core.random.random_log_slopes`.
        steps: least and greatest number of solver steps, one number drawn each time; None takes the
            canonicalizers' own, and so do those that do not iterate.
        centre: weight of the mean answer's distance from the identity, see
            `lse_dec.losses.canonicalizer_equivariance_loss`; at least 0.
        prior: share, within [0, 1], of the loss that takes a training picture as its own canonical form, see
            there.
        frame: where warps are compared, "image" or "canonical", see there.
        rows: (B,) int64, the places of these images among all of the step's.
        total: how many images the step has; goes with `rows`.
        reduction: "mean" over the sites whose canonicalizers have parameters, or "none", one loss for each.

    Returns:
        Scalar, or (sites,), float32 (float64 for float64 features), at least 0. All sites meet the same warps
        and the same number of steps. An answer that ignores the picture has a loss of 1.

    Raises:
        LSEError: not an adapted model, no canonicalizer with parameters, no input or two, or a setting out
            of range.
        ShapeError: `rows` are not one for each image.
        UnknownNameError: no such distribution, frame or reduction.
    """
    model = _unwrapped(adapted)
    if reduction not in ("mean", "none"):
        raise unknown_name("reduction", reduction, ["mean", "none"])
    if steps is not None and not (len(steps) == 2 and 1 <= steps[0] <= steps[1]):
        raise LSEError(f"steps must be two numbers with 1 <= least <= greatest, or None; got {steps!r}")
    if not centre >= 0.0:
        raise LSEError(f"centre must be at least 0; got {centre!r}")
    learning = _learning(model)
    if not learning:
        raise LSEError(
            f"no canonicalizer of {', '.join(model.names) or 'the model'} has parameters that Eq. 5 could "
            "train; adapt with a canonicalizer that has, such as canonicalizer='dec'"
        )
    seen = _entered(model, images, entered, learning)
    batch = len(seen[learning[0]].features)
    if (rows is None) != (total is None):
        raise LSEError("give rows and total together: the places of these images, and how many the step has")
    if rows is not None and rows.shape != (batch,):
        raise ShapeError(f"rows must be one for each of {batch} images; got shape {tuple(rows.shape)}")
    taken = None if steps is None else int(torch.randint(steps[0], steps[1] + 1, (), generator=generator))
    drawn = random_log_slopes(
        batch if total is None else total, segments, ratio, distribution=distribution, generator=generator
    )
    losses = []
    for name in learning:
        canonicalizer, (features, channels_last) = model.canonicalizers[name], seen[name]
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
            prior=prior,
            **options,
        )
        if batch < len(drawn):
            # Eq. 5 is relative to the mean size of its warps: of the whole step's, wherever an image is
            error = error * (_size(g) / _size(SeparableWarp.from_log_slopes(drawn.to(g.x.knots))))
        losses.append(error)
    each = torch.stack(losses)
    return each if reduction == "none" else each.mean()


def equivariance_by_site(
    adapted: nn.Module, images: Tensor | None = None, **options: Any
) -> dict[str, Tensor]:
    """As `equivariance_loss`, with its keywords but `reduction`: a scalar for each site that can learn."""
    losses = equivariance_loss(adapted, images, reduction="none", **options)
    return dict(zip(_learning(_unwrapped(adapted)), losses.unbind(), strict=True))


def _learning(model: AdaptedModel) -> list[str]:
    """Sites whose canonicalizers have parameters."""
    return [n for n, m in model.canonicalizers.items() if any(True for _ in m.parameters())]


def _unwrapped(model: nn.Module) -> AdaptedModel:
    found = next((module for module in model.modules() if isinstance(module, AdaptedModel)), None)
    if found is None:
        raise LSEError(f"Eq. 5 needs what lse_dec.adapt returned; got {type(model).__name__}")
    return found


def _entered(
    model: AdaptedModel,
    images: Tensor | None,
    entered: Mapping[str, Observation | Entered] | None,
    names: list[str],
) -> dict[str, Entered]:
    """What entered the sites called `names`."""
    if (images is None) == (entered is None):
        raise LSEError("give either images or entered, the record of what entered the sites, and not both")
    if entered is None:
        assert images is not None
        if names == [IMAGE]:
            return {IMAGE: Entered(images, False)}
        with torch.no_grad(), evaluating(model), observe(model, first=True) as entered:
            call_with(model, images)
    missing = [name for name in names if name not in entered]
    if missing:
        raise LSEError(
            f"no features entered the sites {', '.join(missing)}: run the adapted model within the block"
        )
    seen = {name: entered[name] for name in names}
    return {name: each.entered if isinstance(each, Observation) else each for name, each in seen.items()}


def _size(g: SeparableWarp) -> Tensor:
    return warp_distance(g, SeparableWarp.identity(g.batch, device=g.device, dtype=g.dtype)).mean()


__getattr__ = moved_names(__name__)
