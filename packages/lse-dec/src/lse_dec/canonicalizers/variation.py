"""The analytic canonicalizer: equal shares of the map's variation, no iteration."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_core.monotone import MonotoneMap, uniform_knots
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization, channels_first

__all__ = ["Variation"]


class Variation(nn.Module):
    """Brings every map to the form in which its variation is spread evenly along both axes.

    |dG/dx| dx and |dG/dy| dy do not change under a warp of the axes, whatever the pointwise map G of the
    features, hence the marginals of sum_c |dG_c/dx| |dG_c/dy| dx dy move with the warp. The inverses of
    their cumulative distributions are therefore an equivariant warp (Eq. 5) by construction, without
    training. What interpolation loses limits this: little on smooth maps, half of the warp's effect on
    unsmoothed photographs. Smooth pictures before they are warped; smoothing here would be too late, because
    it does not commute with warping. Unlike other canonicalizers, a fresh one does not answer the identity.

    Args:
        channels: channels of the features.
        strength: share of the measured variation in the distribution, at least 0 and below 1; the rest is
            uniform. 0 answers with the identity, and the answer is equivariant only near 1. Slopes of the
            warp stay below 1 / (1 - strength).
        hidden: width of the learned pointwise map, G = F + net(F), which starts as F; 0 for F alone.
        segments: equal segments of the warp an axis; None keeps one a pixel, the exact answer.

    Raises:
        LSEError: a setting out of its range.
    """

    def __init__(
        self,
        channels: int,
        *,
        strength: float = 0.99,
        hidden: int = 16,
        segments: int | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= strength < 1.0:
            raise LSEError(f"variation: strength must be at least 0 and below 1; got {strength!r}")
        if hidden < 0 or (segments is not None and segments < 2):
            raise LSEError(f"variation: hidden must be at least 0, segments 2; got {hidden}, {segments}")
        self.channels, self.strength, self.segments = channels, strength, segments
        self.pointwise: nn.Module | None = None
        if hidden:
            last = nn.Conv2d(hidden, channels, 1)
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
            self.pointwise = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.SiLU(), last)

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        """The warp of a batch of maps; ShapeError for a wrong rank or channels."""
        g = channels_first(features, self.channels, channels_last, "variation")
        if self.pointwise is not None:
            g = g + self.pointwise(g)
        # differences of near values: half precision would round them away
        g = g.to(torch.promote_types(g.dtype, torch.float32))
        along_x, along_y = g.diff(dim=3).abs(), g.diff(dim=2).abs()
        # both at the centres of the cells between four pixels
        along_x = along_x[:, :, 1:] + along_x[:, :, :-1]
        along_y = along_y[:, :, :, 1:] + along_y[:, :, :, :-1]
        cells = (along_x * along_y).sum(1)
        return Canonicalization(SeparableWarp(self._spread(cells.sum(1)), self._spread(cells.sum(2))))

    def _spread(self, mass: Tensor) -> MonotoneMap:
        """Inverse of the cumulative distribution of masses (B, n) on n equal cells."""
        n = mass.shape[1]
        total = mass.sum(1, keepdim=True)
        # an even map, or one that is not finite, has nothing to say: the identity
        usable = (total > 0) & total.isfinite()
        shares = torch.where(usable, mass / torch.where(usable, total, 1.0), 1.0 / n)
        rises = self.strength * shares + (1.0 - self.strength) / n
        edge = torch.zeros_like(total)
        values = torch.cat([edge, rises.cumsum(1)[:, :-1], edge + 1.0], dim=1)
        knots = uniform_knots(n, device=mass.device, dtype=mass.dtype).expand_as(values)
        inverse = ~MonotoneMap(knots, values, check=False)
        return inverse if self.segments is None else inverse.resample(self.segments)
