"""The learned energy of Eq. 7, E(S^-1(F; Phi)): low where the features are in canonical form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_core.resample import unscale
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.reduction import Reduction

__all__ = ["Energy"]


class Energy(nn.Module):
    """A small CNN from a canonicalized map to a number; zero for every map before training.

    Args:
        channels: channels of the features.
        resolution: the features are reduced to at most this many pixels a side.
        projection: channels after projection.
        widths: channels of the convolutions.
    """

    def __init__(
        self, channels: int, resolution: int = 16, projection: int = 32, widths: tuple[int, ...] = (64, 128)
    ) -> None:
        super().__init__()
        self.reduction = Reduction(channels, projection, resolution)
        layers: list[nn.Module] = []
        before = projection
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.SiLU()]
            before = width
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(before, 1, bias=False)  # a constant would change no minimum
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Energies (B,) of reduced maps (B, projection, h, w) under log-slopes (B, 2, N)."""
        canonical = unscale(x, SeparableWarp.from_log_slopes(w))
        return self.head(self.convolutions(canonical).mean((2, 3)))[:, 0].to(
            torch.promote_types(x.dtype, w.dtype)
        )
