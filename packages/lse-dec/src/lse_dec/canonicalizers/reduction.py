"""Features made small once, before canonicalizers look at them many times."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_core.constants import constant
from lse_core.errors import ShapeError
from lse_core.resample import averaging_weights, warp_by_weights

__all__ = ["Reduction"]


class Reduction(nn.Module):
    """Anti-aliased reduction on the same corners as every warp, then a pointwise projection.

    Both commute with a warp (the first up to smoothing), so they are done once per solve.

    Args:
        channels: channels of the features.
        projection: channels after projection.
        resolution: the result has at most this many pixels a side, and exactly this many in a graph exported
            for any size, which therefore takes no smaller features.
    """

    def __init__(self, channels: int, projection: int, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        # latent features may have any scale; images come normalised, and a norm over one to three channels
        # would erase them
        self.norm = nn.LayerNorm(channels) if channels >= 8 else nn.Identity()
        self.project = nn.Linear(channels, projection)

    def forward(self, features: Tensor, channels_last: bool) -> Tensor:
        """(B, C, H, W), or (B, H, W, C) if `channels_last`, to (B, projection, h, w).

        Raises:
            ShapeError: exported for any size from an example below `resolution` pixels a side.
        """
        h, w = features.shape[1:3] if channels_last else features.shape[2:4]
        small_h, small_w = _reduced(h, self.resolution), _reduced(w, self.resolution)
        x = features
        if _open(h) or _open(w) or (small_h, small_w) != (h, w):
            a_y, a_x = (
                _averages(big, small, device=x.device, dtype=torch.float32).unsqueeze(0)
                for big, small in ((h, small_h), (w, small_w))
            )
            x = warp_by_weights(
                x, a_x.expand(x.shape[0], -1, -1), a_y.expand(x.shape[0], -1, -1), channels_last=channels_last
            )
        x = x if channels_last else x.permute(0, 2, 3, 1)
        return self.project(self.norm(x)).permute(0, 3, 1, 2)


_averages = constant(averaging_weights)


def _open(n: int) -> bool:
    """Whether a graph is being exported that leaves the size n to each call."""
    return torch.compiler.is_exporting() and isinstance(n, torch.SymInt)


def _reduced(n: int, resolution: int) -> int:
    if not _open(n):
        return min(n, resolution)
    # such a graph cannot choose: it always reduces, and is right for `resolution` pixels a side or more
    if n < resolution:
        raise ShapeError(
            f"dec: a graph for images of any size needs features of at least {resolution} pixels a side (the "
            "setting resolution); export it from a larger example image"
        )
    return resolution
