"""Anderson acceleration (type II): the next iterate mixes the last few to shrink the residual."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lse_core.errors import LSEError
from lse_dec.solvers.elimination import solve_spd
from lse_dec.solvers.settings import positive

__all__ = ["Anderson"]


class _History(NamedTuple):
    z: tuple[Tensor, ...]
    g: tuple[Tensor, ...]


@dataclass(frozen=True)
class Anderson:
    """Anderson mixing after Anderson (1965), in difference form, m differences deep.

    Args:
        m: differences remembered, 1 to 5 (the least-squares system is m x m).
        damping: share of the residual added after mixing, above 0.
        regularisation: added to the system's diagonal relative to its trace. An absolute one would
            stall the solver once residuals are smaller than it.
        max_step: bound on a step's length as a multiple of the residual's; where there is no
            contraction, mixing would otherwise run away.
    """

    m: int = 4
    damping: float = 1.0
    regularisation: float = 1e-7
    max_step: float = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.m <= 5:
            raise LSEError(
                f"anderson solver: m must be 1 to 5 (the system is solved unrolled); got {self.m!r}"
            )
        positive("anderson", "damping", self.damping)
        positive("anderson", "regularisation", self.regularisation)
        positive("anderson", "max_step", self.max_step)

    def init(self, z: Tensor) -> _History:
        """An empty history."""
        return _History((), ())

    def step(self, z: Tensor, fz: Tensor, state: _History) -> tuple[Tensor, _History]:
        """Least-squares mix of the last m differences; the first step is a naive one."""
        g = fz - z
        zs, gs = (*state.z, z)[-self.m - 1 :], (*state.g, g)[-self.m - 1 :]
        history = _History(zs, gs)
        move = self.damping * g
        if len(zs) > 1:
            dz = torch.stack([b - a for a, b in pairwise(zs)], dim=1)
            dg = torch.stack([b - a for a, b in pairwise(gs)], dim=1)
            # elementwise sums, not matmul: autocast must not lower the precision of the system
            # detached: weights are constants to autograd, whose gradient past convergence is noise;
            # they sum to one, so the unrolled gradient still tends to the implicit one
            fixed, target, left = dg.detach(), g.detach(), self._left(dz.detach(), dg.detach())
            gram = (left.unsqueeze(2) * fixed.unsqueeze(1)).sum(-1)
            eye = torch.eye(gram.shape[-1], device=z.device, dtype=z.dtype)
            trace = (gram * eye).sum((-1, -2), keepdim=True).abs()
            # the constant only keeps 0/0 away when nothing moved any more
            gamma = solve_spd(
                gram + (self.regularisation * trace + 1e-30) * eye, (left * target.unsqueeze(1)).sum(-1)
            )
            move = move - ((dz + self.damping * dg) * gamma.unsqueeze(-1)).sum(1)
        return z + cap_length(move, g, self.max_step), history

    def _left(self, dz: Tensor, dg: Tensor) -> Tensor:
        """What the mixed residual is made orthogonal to, (B, m, D): its own differences, least squares."""
        return dg


def cap_length(move: Tensor, g: Tensor, times: float) -> Tensor:
    """Shorten rows of `move` (B, D) to at most `times` the length of the rows of `g`."""
    length = move.detach().square().sum(-1, keepdim=True).sqrt()
    limit = times * g.detach().square().sum(-1, keepdim=True).sqrt()
    return move * (limit / length.clamp_min(1e-30)).clamp_max(1.0)
