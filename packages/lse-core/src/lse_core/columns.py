"""Sampling at triangular positions: one axis as a whole, then every column at positions of its own.

In operations that every runtime has: no GridSample. Positions are in pixels, 0 the centre of the first.
"""

from __future__ import annotations

from torch import Tensor

from lse_core.sampling import pixel_weights

__all__ = ["sample_columns"]


def sample_columns(x: Tensor, s: Tensor, t: Tensor, *, taps: bool = False) -> Tensor:
    """Sample a map (B, F, S, C), the warp's first axis before its second one, bilinearly.

    By products it is differentiable twice, and the derivative at exact pixels is the mean of both sides.

    Args:
        x: the map, any floating dtype.
        s: (B, n) positions along the first axis, within [0, F-1].
        t: (B, n, m) positions along the second axis in the columns found there, within [0, S-1].
        taps: gather the two neighbours of each position of the second axis, which costs less for few
            channels, in place of a matrix product for each column, which costs less for many. The derivative
            by `t` is then that of one side at exact pixels.

    Returns:
        (B, n, m, C), in the dtype of `x`; the same both ways, up to rounding.
    """
    b, first, second, c = x.shape
    moved = (pixel_weights(s, first).to(x.dtype) @ x.reshape(b, first, second * c)).view(b, -1, second, c)
    if not taps or second == 1:
        return pixel_weights(t, second).to(x.dtype) @ moved
    below = t.floor().clamp(0, second - 2)
    share = (t - below).unsqueeze(-1).to(x.dtype)
    index = below.long().unsqueeze(-1).expand(-1, -1, -1, c)
    low, high = moved.gather(2, index), moved.gather(2, index + 1)
    return low + share * (high - low)
