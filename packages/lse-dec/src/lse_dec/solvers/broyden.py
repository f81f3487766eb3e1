"""Broyden's good method with limited memory: a quasi-Newton root of f(z) - z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lse_core.errors import LSEError
from lse_dec.solvers.anderson import append, shortening
from lse_dec.solvers.base import lengths, multiply_add
from lse_dec.solvers.settings import positive

__all__ = ["Broyden"]

NONMONOTONE = 5
"""A trial is compared with the largest of so many residuals: Broyden's do not fall at every step."""


class _Memory(NamedTuple):
    """Inverse Jacobian H = -I + sum_i u_i v_i^T, u and v (B, k, D), and where the last step began."""

    u: Tensor | None
    v: Tensor | None
    z: Tensor
    g: Tensor
    search: _Search | None


class _Search(NamedTuple):
    """Share (B, 1) of the full step that the last trial took, and lengths (B, 1) of accepted residuals."""

    share: Tensor
    lengths: tuple[Tensor, ...]


@dataclass(frozen=True)
class Broyden:
    """Limited-memory Broyden (1965) on g(z) = f(z) - z, starting from the Jacobian of a constant f.

    Args:
        memory: rank-one updates kept, at least 1. When they are full the next begins anew: dropping only
            the oldest leaves the others wrong, for each was made on top of those before.
        max_step: bound on a step's length as a multiple of the residual's. Uncapped, the method
            overflows where there is no fixed point.
        backtracks: line search (Grippo, Lampariello and Lucidi, 1986): a step that leaves the residual
            above the last few, or not finite, is taken again at half its length, up to this often. Every
            sample searches on its own and nothing is read back to the host, but each trial is one of the
            solve's steps: for long solves of updates whose full steps overshoot. 0 takes the capped step
            and nothing else, which is what few steps and an export want.
    """

    memory: int = 10
    max_step: float = 20.0
    backtracks: int = 0

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise LSEError(f"broyden solver: memory must be at least 1; got {self.memory!r}")
        if self.backtracks < 0:
            raise LSEError(f"broyden solver: backtracks must be at least 0; got {self.backtracks!r}")
        positive("broyden", "max_step", self.max_step)

    def init(self, z: Tensor) -> None:
        """Nothing yet: H = -I, so the first step is a naive one."""
        return

    def step(self, z: Tensor, fz: Tensor, state: _Memory | None) -> tuple[Tensor, _Memory]:
        """Sherman-Morrison update from the last move, then the quasi-Newton step -H g, or part of it."""
        g = fz - z
        if state is None:
            search = self._begin(g) if self.backtracks else None
            return z + min(1.0, self.max_step) * g, _Memory(None, None, z, g, search)
        us, vs = state.u, state.v
        if us is not None and us.shape[1] >= self.memory:
            us = vs = None
        # detached, for the reason given in anderson.py
        s, y = (z - state.z).detach(), (g - state.g).detach()
        hy = _product(us, vs, y) - y
        v = _product(vs, us, s) - s  # H^T s
        denominator = (s * hy).sum(-1, keepdim=True)
        # a vanishing denominator means the secant says nothing: leave H as it is
        usable = denominator.abs() > 1e-6 * s.square().sum(-1, keepdim=True) + 1e-30
        search = None
        if state.search is not None:
            again, search = self._judge(g, state.search)
            # a rejected trial changes neither H nor the point, so the same step comes out again
            usable = usable & ~again
            z, g = torch.where(again, state.z, z), torch.where(again, state.g, g)
        u = torch.where(usable, (s - hy) / torch.where(usable, denominator, 1.0), 0.0)
        us, vs = append(us, u, self.memory), append(vs, v, self.memory)
        move = g - _product(us, vs, g)
        share = shortening(move, g, self.max_step)
        share = share if search is None else search.share * share
        return multiply_add(z, move, share), _Memory(us, vs, z, g, search)

    def _begin(self, g: Tensor) -> _Search:
        """The search of a first step: the full one, from where the residual is `g`."""
        return _Search(torch.ones_like(g[:, :1]), (lengths(g.detach()).nan_to_num(torch.inf),))

    def _judge(self, g: Tensor, search: _Search) -> tuple[Tensor, _Search]:
        """Which samples (B, 1) try again at half the length, and the search of the next step."""
        length = lengths(g.detach())
        limit = torch.stack(search.lengths).amax(0)
        again = ~(length <= (1.0 - 1e-4 * search.share) * limit)  # so written, NaN tries again too
        again = again & (search.share > 0.75 * 0.5**self.backtracks)
        share = torch.where(again, 0.5 * search.share, 1.0)
        last = torch.where(again | ~length.isfinite(), search.lengths[-1], length)
        return again, _Search(share, (*search.lengths, last)[-NONMONOTONE:])


def _product(us: Tensor | None, vs: Tensor | None, x: Tensor) -> Tensor | float:
    """sum_i u_i v_i^T x for rows x, (B, D), of u and v (B, k, D)."""
    if us is None or vs is None:
        return 0.0
    # elementwise sums, not matmul: autocast must not lower the precision
    return (us * (vs * x.unsqueeze(1)).sum(-1, keepdim=True)).sum(1)
