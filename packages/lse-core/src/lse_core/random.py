"""Random monotone maps: the distribution Omega of Eq. 23 to 25, by name.

Every distribution keeps slopes within the same bounds at every number of segments. How far points move
is another matter: with independent segments ("log_uniform", "uniform", "authors") the ups and downs
average out, and displacements fall as one over the root of their number. "smooth" draws one curve and
reads it on as many segments as asked for, so there a ratio means the same displacement at every knot count.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lse_core.errors import ShapeError, WarpError, unknown_name

__all__ = ["DISTRIBUTIONS", "authors_log_slopes", "random_log_slopes"]

DISTRIBUTIONS = ("log_uniform", "uniform", "smooth", "authors")
SWEEPS = 40  # of the uniform sampler; 64 slopes have their final spread after 20
WAVES = 3  # of the smooth curves


def random_log_slopes(
    batch: int,
    segments: int = 4,
    ratio: float = 2.0,
    *,
    distribution: str = "log_uniform",
    strength: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Log-slopes of random separable warps, (batch, 2, segments), both axes independent.

    `MonotoneMap.from_log_slopes` of the result has slopes within [1/ratio, ratio].

    Args:
        batch: how many warps.
        segments: equal segments an axis, N of Eq. 12.
        ratio: bound on the slopes, above 1.
        distribution: "log_uniform", log-slopes independent and uniform: a warp is as likely as its
            inverse to stretch a segment; "uniform", all lists of slopes within the bounds equally
            likely, Omega as Eq. 23 has it; "smooth", slow waves, the same at every number of segments;
            "authors", what the published code draws (see `authors_log_slopes`), for which `strength`
            takes the place of `ratio`.
        strength: shrinks warps towards the identity: log-slopes are multiplied by it. Within [0, 1],
            but for "authors" any number from 0.
        generator: source of randomness; on `device`.
        device: where the result is.
        dtype: floating dtype of the result.

    Raises:
        WarpError: ratio or strength out of range, or no number.
        ShapeError: no segments, or a number of warps or segments that is not whole.
        UnknownNameError: no such distribution.
    """
    if distribution not in DISTRIBUTIONS:
        raise unknown_name("distribution", distribution, DISTRIBUTIONS)
    if not isinstance(ratio, int | float) or not 1.0 < ratio < math.inf:
        raise WarpError(f"ratio must be above 1, the slope of the identity, and finite; got {ratio!r}")
    for name, value, least in (("batch", batch, 0), ("segments", segments, 1)):
        if not isinstance(value, int | torch.SymInt) or value < least:
            raise ShapeError(f"{name} must be a whole number of at least {least}; got {value!r}")
    shape = (batch, 2, segments)
    if distribution == "authors":
        return authors_log_slopes(shape, strength, generator=generator, device=device, dtype=dtype)
    if not 0.0 <= strength <= 1.0:
        raise WarpError(f"strength must lie within [0, 1] (ratio sets the largest slope); got {strength}")

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=device, dtype=dtype)

    half = 0.5 * math.log(ratio)
    if distribution == "log_uniform":
        return strength * half * (2.0 * uniform(*shape) - 1.0)
    if distribution == "smooth":
        return strength * half * _waves(2.0 * uniform(batch, 2, WAVES) - 1.0, segments)
    start = torch.ones(shape, device=device, dtype=dtype)
    for _ in range(SWEEPS if segments > 1 else 0):
        order = torch.randperm(segments, generator=generator, device=device)
        start = _resample_pairs(start, order, uniform(batch, 2, segments // 2), ratio)
    return strength * start.log()


def _waves(amplitudes: Tensor, segments: int) -> Tensor:
    """Sums of cosines at the middles of segments, within [-1, 1]: (..., WAVES) to (..., segments)."""
    waves = amplitudes.shape[-1]
    t = (torch.arange(segments, device=amplitudes.device, dtype=amplitudes.dtype) + 0.5) / segments
    k = torch.arange(1, waves + 1, device=amplitudes.device, dtype=amplitudes.dtype)
    # slow waves move points farther than quick ones of one height, so 1/k keeps the mixture even
    basis = torch.cos(math.pi * k.unsqueeze(1) * t) / k.unsqueeze(1)
    return amplitudes @ basis / (1.0 / k).sum()


def _resample_pairs(slopes: Tensor, order: Tensor, u: Tensor, ratio: float) -> Tensor:
    """One Gibbs sweep over disjoint pairs of slopes, each drawn anew with its sum held.

    Given its sum s, the uniform distribution on lists that add up to N makes a pair's first slope
    uniform between max(lo, s - hi) and min(hi, s - lo).
    """
    half = order.shape[0] // 2
    first, second = order[:half], order[half : 2 * half]
    total = slopes[..., first] + slopes[..., second]
    low, high = (total - ratio).clamp_min(1.0 / ratio), (total - 1.0 / ratio).clamp_max(ratio)
    drawn = low + u * (high - low)
    out = slopes.clone()
    out[..., first], out[..., second] = drawn, total - drawn
    return out


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
    the parameters (sigma 0.2 of a node, four millionths from each neighbour) is left out. Their grids
    draw every row and column on its own, see `GridWarp.random`.
    """
    if strength < 0:
        raise WarpError(f"strength must be at least 0; got {strength}")
    return 3.0 * strength * torch.rand(shape, generator=generator, device=device, dtype=dtype)
