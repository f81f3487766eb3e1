"""A canonicalizer that gives more room to strips of the map where more is to be seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_core import SeparableWarp
from lse_core.errors import LSEError
from lse_dec.canonicalizers import Canonicalization
from lse_dec.canonicalizers.base import channels_first
from lse_dec.solvers import Anderson, Solver, solve


class Weigh(nn.Module):
    """Weighs the columns and the rows of a map, and finds the warp that balances them.

    The state is the warp's logits z, (B, 2, N). Its fixed point is z = gain * (share - 1) * (1 - tanh(z)), a
    strip's share of the mass being relative to the mean: heavy strips grow, less and less.

    Args:
        channels: channels of the map.
        segments: strips an axis, N, at least 2.
        ratio: slopes of the warp lie within [1/ratio, ratio]; above 1, at most 4.
        solver: fixed-point solver.
        steps: evaluations of the update, at least 1.
    """

    def __init__(
        self,
        channels: int,
        *,
        segments: int = 4,
        ratio: float = 2.0,
        solver: Solver | None = None,
        steps: int = 3,
    ) -> None:
        super().__init__()
        if segments < 2 or not 1.0 < ratio <= 4.0 or steps < 1:
            raise LSEError(
                "weigh: segments must be at least 2, ratio above 1 and at most 4, steps at least 1; "
                f"got {segments}, {ratio}, {steps}"
            )
        self.channels, self.segments, self.ratio, self.steps = channels, segments, ratio, steps
        self.solver = solver if solver is not None else Anderson()
        self.weight = nn.Conv2d(channels, 1, 1)
        self.gain = nn.Parameter(torch.zeros(()))  # the identity, to begin with

    def forward(
        self, features: Tensor, *, channels_last: bool = False, steps: int | None = None
    ) -> Canonicalization:
        """The warps of maps (B, C, H, W), or (B, H, W, C) if `channels_last`."""
        x = channels_first(features, self.channels, channels_last, "weigh")
        precise = torch.promote_types(x.dtype, torch.float32)
        mass = self.weight(x).to(precise).square()
        b, n = x.shape[0], self.segments
        shares = torch.stack([self._shares(mass.mean(2)), self._shares(mass.mean(3))], dim=1)
        pull = (self.gain.to(precise) * shares).reshape(b, 2 * n)

        def update(z: Tensor) -> Tensor:
            return pull * (1.0 - torch.tanh(z))

        solution = solve(
            update,
            torch.zeros_like(pull),
            self.solver,
            steps=self.steps if steps is None else steps,
        )
        return Canonicalization(SeparableWarp.from_logits(solution.z.view(b, 2, n), self.ratio), solution)

    def _shares(self, line: Tensor) -> Tensor:
        """Mean masses over N strips of lines (B, 1, n), relative to the mean of all, less 1: (B, N)."""
        strips = nn.functional.interpolate(line, size=self.segments, mode="linear").squeeze(1)
        return strips / strips.mean(-1, keepdim=True).clamp_min(1e-12) - 1.0
