"""Label-free training signals for canonicalizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lse_core.monotone import MonotoneMap, uniform_knots
from lse_core.resample import scale
from lse_core.separable import SeparableWarp

__all__ = ["canonicalizer_equivariance_loss", "warp_distance"]


def warp_distance(a: SeparableWarp, b: SeparableWarp, points: int = 17) -> Tensor:
    """Mean squared difference of two warps at `points` equal steps an axis, (B,), in units of the square."""
    dtype, device = a.dtype, a.device
    u = uniform_knots(points - 1, device=device, dtype=dtype)[1:-1]

    def axis(m: MonotoneMap, n: MonotoneMap) -> Tensor:
        return (m(u) - n(u)).square().mean(-1)

    return 0.5 * (axis(a.x, b.x) + axis(a.y, b.y))


def canonicalizer_equivariance_loss(
    canonicalizer: Any,
    features: Tensor,
    g: SeparableWarp,
    *,
    channels_last: bool = False,
    **options: Any,
) -> Tensor:
    """Eq. 5 as a loss: how far h(S(F; g)) is from g h(F), without labels.

    Answering the identity for every image costs 1. The best answer that still ignores the image costs
    less, because a constant warp pressed against its bounds shrinks what g moves: 0.64 with slopes
    within [1/2, 2] (a DEC of ratio 4) and 0.81 for a DEC of ratio 2. Only below that is the input used.

    Args:
        canonicalizer: h, a `Canonicalizer`.
        features: F, (B, C, H, W) or (B, H, W, C).
        g: random warps, batch B.
        channels_last: where the channels are.
        options: passed to both calls, `steps` for example.

    Returns:
        Scalar: mean squared distance of the two warps at 17 points an axis, relative to the mean
        squared size of g; 1 is what the identity costs.
    """
    layout = "nhwc" if channels_last else "nchw"
    # one call for both views: half the launches, and batch statistics see both
    both = torch.cat([features, scale(features, g, layout)])
    warp = canonicalizer(both, channels_last=channels_last, **options).warp
    n = features.shape[0]
    plain, moved = warp[:n], warp[n:]
    size = warp_distance(g, SeparableWarp.identity(g.batch, device=g.device, dtype=g.dtype))
    return warp_distance(moved, g @ plain).mean() / size.mean().clamp_min(1e-12)
