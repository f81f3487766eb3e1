"""Discrete canonicalization (Canon in the paper): the best of a fixed set of warps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_core.random import random_log_slopes
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization, channels_first
from lse_dec.canonicalizers.energy import Energy

__all__ = ["Canon"]


class Canon(nn.Module):
    """Tries every warp of a fixed set on every map and takes the one of least energy (Eq. 7).

    The choice passes gradient straight through: forward the best warp, backward the mixture by
    softmax of the negative energies. The set holds the identity, which wins ties, so a fresh
    one answers with it.

    Args:
        channels: channels of the features.
        warps: how many warps, the identity among them; the paper has 64.
        segments: equal segments an axis.
        ratio: bound on their slopes, within [1/ratio, ratio]; above 1, at most 4.
        temperature: of the softmax, above 0.
        seed: of the warps, which are part of the state.
        resolution: the energy sees at most this many pixels a side.
        widths: channels of the energy's convolutions.

    Raises:
        LSEError: a setting out of its range.
    """

    templates: Tensor

    def __init__(
        self,
        channels: int,
        *,
        warps: int = 64,
        segments: int = 8,
        ratio: float = 2.0,
        temperature: float = 1.0,
        seed: int = 0,
        resolution: int = 16,
        widths: tuple[int, ...] = (32, 64, 64),
    ) -> None:
        super().__init__()
        if warps < 2 or segments < 2 or not 1.0 < ratio <= 4.0 or not temperature > 0.0:
            raise LSEError(
                "canon: warps and segments must be at least 2, ratio above 1 and at most 4, temperature "
                f"above 0; got {warps}, {segments}, {ratio}, {temperature}"
            )
        self.channels, self.temperature = channels, temperature
        self.energy = Energy(channels, resolution, widths=widths)
        generator = torch.Generator().manual_seed(seed)
        templates = random_log_slopes(warps, segments, ratio, generator=generator)
        templates[0] = 0.0
        self.register_buffer("templates", templates)

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        """The best warp for each of a batch of maps; ShapeError for a wrong rank or channels."""
        channels_first(features, self.channels, channels_last, "canon")
        x = self.energy.reduction(features, channels_last)
        b, k = x.shape[0], self.templates.shape[0]
        templates = self.templates.to(torch.promote_types(features.dtype, torch.float32))
        # every map with every warp: maps repeat in the outer order, warps in the inner one
        tried = x.repeat_interleave(k, dim=0), templates.repeat(b, 1, 1)
        energies = self.energy(*tried).view(b, k)
        mixture = ((-energies / self.temperature).softmax(-1) @ templates.flatten(1)).view(
            b, *templates.shape[1:]
        )
        best = templates[energies.argmin(-1)]
        return Canonicalization(SeparableWarp.from_log_slopes(best + (mixture - mixture.detach())))
