"""A family of warps: separable ones that move both axes alike."""

from __future__ import annotations

import torch
from torch import Tensor

from lse_core import SeparableWarp
from lse_dec.canonicalizers import WarpFamily
from lse_dec.canonicalizers.network import UpdateNetwork


class AlikeNetwork(UpdateNetwork):
    """The mean of what the two axes ask for."""

    def forward(self, x: Tensor, averages: tuple[Tensor, ...] | None = None) -> Tensor:
        """Proposal (B, 1, N) for a map (B, C, h, w)."""
        return super().forward(x, averages).mean(1, keepdim=True)


class AlikeFamily(WarpFamily):
    """States (1, N): the log-slopes of the one map that moves x and y."""

    products = True

    def shape(self, segments: int) -> tuple[int, ...]:
        """(1, N)."""
        return 1, segments

    def warp(self, w: Tensor) -> SeparableWarp:
        """The warps of states (B, 1, N)."""
        return SeparableWarp.from_log_slopes(w.expand(-1, 2, -1))

    def network(self, channels: int, segments: int, widths: tuple[int, ...]) -> UpdateNetwork:
        """The network of separable warps, its two answers averaged."""
        return AlikeNetwork(channels, segments, widths)

    def lifted(self, w: Tensor) -> Tensor:
        """The mean of both axes' log-slopes."""
        return w.mean(1, keepdim=True)


class AlikeWarp(SeparableWarp):
    """What the hook gives: the class that random warps are drawn from, and its family."""

    __slots__ = ()
    family = AlikeFamily

    @classmethod
    def random(
        cls,
        batch: int = 1,
        *,
        segments: int = 4,
        strength: float = 0.5,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> SeparableWarp:
        """Random warps, log-slopes normal with standard deviation `strength`."""
        w = strength * torch.randn(batch, 1, segments, generator=generator, dtype=dtype)
        return AlikeFamily().warp(w)
