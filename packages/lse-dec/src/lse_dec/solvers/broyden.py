"""Broyden's good method with limited memory: a quasi-Newton root of f(z) - z."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lse_core.errors import LSEError
from lse_dec.solvers.anderson import append, shortening
from lse_dec.solvers.base import multiply_add, positive

__all__ = ["Broyden"]


class _Memory(NamedTuple):
    """Inverse Jacobian H = -I + sum_i u_i v_i^T, u and v (B, k, D), and where the last step began."""

    u: Tensor | None
    v: Tensor | None
    z: Tensor
    g: Tensor


@dataclass(frozen=True)
class Broyden:
    """Limited-memory Broyden (1965) on g(z) = f(z) - z, starting from the Jacobian of a constant f.

    Args:
        memory: rank-one updates kept, at least 1. When they are full the next begins anew: dropping only
            the oldest leaves the others wrong, for each was made on top of those before.
        max_step: bound on a step's length as a multiple of the residual's. Uncapped, the method
            overflows where there is no fixed point.
        backtracks: was removed, and is refused unless 0.

    Raises:
        LSEError: a setting out of its range.
    """

    memory: int = 10
    max_step: float = 20.0
    backtracks: InitVar[int] = 0

    def __post_init__(self, backtracks: int) -> None:
        if backtracks:
            raise LSEError(
                "broyden solver: the line search (backtracks) was removed; leave it out, and give a smaller "
                "max_step where full steps overshoot"
            )
        if self.memory < 1:
            raise LSEError(f"broyden solver: memory must be at least 1; got {self.memory!r}")
        positive("broyden", "max_step", self.max_step)

    def init(self, z: Tensor) -> None:
        """Nothing yet: H = -I, so the first step is a naive one."""
        return

    def step(self, z: Tensor, fz: Tensor, state: _Memory | None) -> tuple[Tensor, _Memory]:
        """Sherman-Morrison update from the last move, then the quasi-Newton step -H g, capped."""
        g = fz - z
        if state is None:
            return z + min(1.0, self.max_step) * g, _Memory(None, None, z, g)
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
        u = torch.where(usable, (s - hy) / torch.where(usable, denominator, 1.0), 0.0)
        us, vs = append(us, u, self.memory), append(vs, v, self.memory)
        move = g - _product(us, vs, g)
        return multiply_add(z, move, shortening(move, g, self.max_step)), _Memory(us, vs, z, g)


def _product(us: Tensor | None, vs: Tensor | None, x: Tensor) -> Tensor | float:
    """sum_i u_i v_i^T x for rows x, (B, D), of u and v (B, k, D)."""
    if us is None or vs is None:
        return 0.0
    # elementwise sums, not matmul: autocast must not lower the precision
    return (us * (vs * x.unsqueeze(1)).sum(-1, keepdim=True)).sum(1)
