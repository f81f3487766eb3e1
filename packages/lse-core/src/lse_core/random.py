"""Random monotone maps: the distribution Omega of Eq. 23 to 25."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lse_core.errors import WarpError

__all__ = ["authors_log_slopes", "random_log_slopes"]


def random_log_slopes(
    batch: int,
    segments: int = 4,
    ratio: float = 2.0,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Log-slopes of random separable warps, (batch, 2, segments), independent and uniform.

    The log-slopes are uniform within ln(ratio)/2 either side of zero, so every warp's slopes lie
    within [1/ratio, ratio] and a warp is as likely as its inverse to stretch a segment.

    Args:
        batch: how many warps.
        segments: equal segments an axis, N of Eq. 12.
        ratio: bound on the slopes, above 1.
        generator: source of randomness; on `device`.
        device: where the result is.
        dtype: floating dtype of the result.
    """
    if not ratio > 1.0:
        raise WarpError(f"ratio must exceed 1, the identity's slope; got {ratio}")
    u = torch.rand(batch, 2, segments, generator=generator, device=device, dtype=dtype)
    return (u - 0.5) * math.log(ratio)


def authors_log_slopes(
    shape: tuple[int, ...],
    strength: float,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Log-slopes as the authors' published code draws them: uniform in [0, 3 strength], of any shape.

    Since a constant drops out, the slopes lie within [exp(-3 strength), exp(3 strength)]. Their blur of
    the parameters (sigma 0.2 of a node, four millionths from each neighbour) is left out.
    """
    if strength < 0:
        raise WarpError(f"strength must be at least 0; got {strength}")
    return 3.0 * strength * torch.rand(shape, generator=generator, device=device, dtype=dtype)
