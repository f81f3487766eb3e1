"""The update network of the DEC: a small CNN from a canonicalized map to a proposal for each axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["UpdateNetwork", "segment_weights"]


class UpdateNetwork(nn.Module):
    """Convolutions (section A1: two layers of 64 and 128 channels), averages onto the segments, a head.

    Where the paper pools adaptively in two dimensions, a separable warp needs one profile an axis:
    the map is averaged along the other axis and onto the N segments by constant matrices (adaptive
    pooling to sizes that do not divide the map neither exports nor keeps positions).

    The last layer starts at zero, so the proposal is zero and the warp the identity.

    Args:
        channels: channels of the map.
        segments: N, segments an axis.
        widths: channels of the convolutions.
        mixing: hidden width of the head, which sees all segments of both axes.
    """

    def __init__(
        self, channels: int, segments: int, widths: tuple[int, ...] = (64, 128), mixing: int = 64
    ) -> None:
        super().__init__()
        self.segments = segments
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
            channels = width
        self.convolutions = nn.Sequential(*layers)
        self.squeeze = nn.Linear(channels, max(8, channels // 8))
        self.mix = nn.Linear(2 * segments * self.squeeze.out_features, mixing)
        self.head = nn.Linear(mixing, 2 * segments)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Proposal (B, 2, N), axis x first, for a map (B, C, h, w); float32 whatever autocast does."""
        x = self.convolutions(x)
        columns = segment_weights(x.shape[3], self.segments, x) @ x.mean(2).transpose(1, 2)
        rows = segment_weights(x.shape[2], self.segments, x) @ x.mean(3).transpose(1, 2)
        profile = nn.functional.silu(self.squeeze(torch.stack([columns, rows], dim=1)))
        hidden = nn.functional.silu(self.mix(profile.flatten(1)))
        return self.head(hidden).float().view(-1, 2, self.segments)


def segment_weights(n: int, segments: int, like: Tensor) -> Tensor:
    """Averages n pixels onto equal segments of [0, 1], (segments, n): a pixel counts by its overlap.

    Pixel j reaches half a pixel either side of j/(n-1), cut at the ends of the interval.
    """
    edges = torch.linspace(0.0, 1.0, segments + 1, device=like.device, dtype=like.dtype)
    j = torch.arange(n + 1, device=like.device, dtype=like.dtype) - 0.5
    borders = (j / max(n - 1, 1)).clamp(0.0, 1.0)
    low = torch.maximum(edges[:-1, None], borders[None, :-1])
    high = torch.minimum(edges[1:, None], borders[None, 1:])
    overlap = (high - low).clamp_min(0.0)
    return overlap / overlap.sum(-1, keepdim=True)
