"""Label-free training signals for canonicalizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lse_core.errors import LSEError, unknown_name
from lse_core.monotone import uniform_knots
from lse_core.resample import scale
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Warp, places

__all__ = ["FRAMES", "canonicalizer_equivariance_loss", "off_centre", "warp_distance"]

FRAMES = ("image", "canonical")


def warp_distance(a: Warp, b: Warp, points: int = 17) -> Tensor:
    """Mean squared difference of two warps at `points` equal steps an axis, (B,), in units of the square.

    Separable warps are compared axis by axis, others on the lattice of these points.
    """
    u = uniform_knots(points - 1, device=a.device, dtype=a.dtype)[1:-1]
    by_axis = isinstance(a, SeparableWarp) and isinstance(b, SeparableWarp)
    return (places(a, u, by_axis) - places(b, u, by_axis)).square().mean((1, 2))


def canonicalizer_equivariance_loss(
    canonicalizer: Any,
    features: Tensor,
    g: Warp,
    *,
    channels_last: bool = False,
    frame: str = "image",
    centre: float = 0.0,
    prior: float = 0.0,
    **options: Any,
) -> Tensor:
    """Eq. 5 as a loss: the squared distance of h(S(F; g)) from g h(F). It needs no labels.

    Both warps are compared at points that are equal steps apart in one of two frames. In the picture's frame
    ("image") the loss of every answer that ignores the picture is 1. In the canonical frame ("canonical") it
    can be less: a constant warp with slopes at their bounds crowds the points where g moves little. For g
    with slopes within [1/2, 2] and a DEC of ratio 4 the least such loss is 0.64, and training finds that
    warp.

    Eq. 5 does not determine h alone: if h is equivariant, so is F -> h(F) c for any fixed warp c. Training
    may drift to a c that shrinks all objects, so that the network behind it sees them at a lower resolution.
    `centre` prevents this by asking that the mean answer over the batch be the identity. `prior` does it
    picture by picture: it takes F, a picture of the training set, as its own canonical form, so h(F) shall be
    the identity and h(S(F; g)) shall be g. (The canonicalization prior of Mondal et al., "Equivariant
    Adaptation of Large Pretrained Models", NeurIPS 2023, for this group.) A network that has only seen
    training pictures can then be used as it is.

    Args:
        canonicalizer: h, a `Canonicalizer`.
        features: F, (B, C, H, W) or (B, H, W, C).
        g: random warps, batch B; separable or coupled.
        channels_last: where the channels are.
        frame: "image" or "canonical".
        centre: weight of the mean answer's squared distance from the identity, in the same units.
        prior: share of the prior's loss, within [0, 1]: 0 is Eq. 5 alone, 1 the prior alone.
        options: passed to the canonicalizer, `steps` for example. It sees F and S(F; g) as one batch of
            2B, in this order.

    Returns:
        Scalar: mean squared distance of the two warps at 15 inner points an axis, relative to the mean
        squared size of g; 1 is what the identity costs. Weighted by `centre`, the mean answer's is added.

    Raises:
        UnknownNameError: no such frame.
        LSEError: `prior` out of its range.
    """
    if not 0.0 <= prior <= 1.0:
        raise LSEError(f"prior must lie within [0, 1]; got {prior!r}")
    if frame not in FRAMES:
        raise unknown_name("frame", frame, FRAMES)
    layout = "nhwc" if channels_last else "nchw"
    # one call for both views: half the launches, and batch statistics see both
    both = torch.cat([features, scale(features, g, layout)])
    warp = canonicalizer(both, channels_last=channels_last, **options).warp
    n = features.shape[0]
    plain, moved = warp[:n], warp[n:]
    identity = SeparableWarp.identity(g.batch, device=g.device, dtype=g.dtype)
    size = warp_distance(g, identity)
    if frame == "canonical":
        apart = warp_distance(moved, g @ plain)
    elif all(isinstance(w, SeparableWarp) for w in (plain, moved, g)):
        apart = warp_distance(moved @ ~plain, g)
    else:
        apart, size = _weighed(plain, moved, g), _weighed(identity, identity, g)
    error = apart.mean()
    if prior > 0.0:
        error = torch.lerp(error, (warp_distance(moved, g) + warp_distance(plain, identity)).mean(), prior)
    if centre > 0.0:
        error = error + centre * off_centre(warp)
    return error / size.mean().clamp_min(1e-12)


def off_centre(warp: Warp, points: int = 17) -> Tensor:
    """Squared distance of a batch's mean warp from the identity, scalar; points as in `warp_distance`."""
    u = uniform_knots(points - 1, device=warp.device, dtype=warp.dtype)[1:-1]
    even = places(SeparableWarp.identity(device=u.device, dtype=u.dtype), u, isinstance(warp, SeparableWarp))
    return (places(warp, u).mean(0) - even).square().mean()


def _weighed(plain: Warp, moved: Warp, g: Warp, cells: int = 16) -> Tensor:
    """The squared distance of `moved` from g @ plain over the picture, (B,), without an inverse.

    Substituting p = plain(v) turns the integral over the picture into one over the canonical square,
    where every cell counts by the area that `plain` gives it.
    """
    u = torch.linspace(0.0, 1.0, cells + 1, device=plain.device, dtype=plain.dtype)
    lattice = torch.stack(torch.meshgrid(u, u, indexing="xy"), dim=-1).view(-1, 2)
    there = plain(lattice)
    miss = (moved(lattice) - g(there)).square().mean(-1).unflatten(1, (cells + 1, cells + 1))
    corners = there.unflatten(1, (cells + 1, cells + 1))
    # half the cross product of a quadrilateral's diagonals is its area
    d, e = corners[:, 1:, 1:] - corners[:, :-1, :-1], corners[:, 1:, :-1] - corners[:, :-1, 1:]
    area = 0.5 * (d[..., 0] * e[..., 1] - d[..., 1] * e[..., 0]).abs()
    mean = 0.25 * (miss[:, 1:, 1:] + miss[:, :-1, :-1] + miss[:, 1:, :-1] + miss[:, :-1, 1:])
    return (area * mean).sum((1, 2))
