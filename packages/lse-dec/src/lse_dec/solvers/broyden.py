"""Broyden's good method with limited memory: a quasi-Newton root of f(z) - z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lse_core.errors import LSEError
from lse_dec.solvers.anderson import cap_length
from lse_dec.solvers.settings import positive

__all__ = ["Broyden"]


class _Memory(NamedTuple):
    """Inverse Jacobian H = -I + sum_i u_i v_i^T, and the last point."""

    u: tuple[Tensor, ...]
    v: tuple[Tensor, ...]
    z: Tensor | None
    g: Tensor | None


@dataclass(frozen=True)
class Broyden:
    """Limited-memory Broyden (1965) on g(z) = f(z) - z, starting from the Jacobian of a constant f.

    Args:
        memory: rank-one updates kept, at least 1; the oldest is dropped.
        max_step: bound on a step's length as a multiple of the residual's. Uncapped, the method
            overflows where there is no fixed point.
    """

    memory: int = 10
    max_step: float = 20.0

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise LSEError(f"broyden solver: memory must be at least 1; got {self.memory!r}")
        positive("broyden", "max_step", self.max_step)

    def init(self, z: Tensor) -> _Memory:
        """No updates yet: H = -I, so the first step is a naive one."""
        return _Memory((), (), None, None)

    def step(self, z: Tensor, fz: Tensor, state: _Memory) -> tuple[Tensor, _Memory]:
        """Sherman-Morrison update from the last move, then the quasi-Newton step -H g."""
        g = fz - z
        us, vs = state.u, state.v
        if state.z is not None and state.g is not None:
            # detached, for the reason given in anderson.py
            s, y = (z - state.z).detach(), (g - state.g).detach()
            hy = _apply(us, vs, y)
            v = _apply(vs, us, s)  # H^T s
            denominator = (s * hy).sum(-1, keepdim=True)
            # a vanishing denominator means the secant says nothing: leave H as it is
            usable = denominator.abs() > 1e-6 * s.square().sum(-1, keepdim=True) + 1e-30
            u = torch.where(usable, (s - hy) / torch.where(usable, denominator, 1.0), 0.0)
            us, vs = (*us, u)[-self.memory :], (*vs, v)[-self.memory :]
        move = cap_length(-_apply(us, vs, g), g, self.max_step)
        return z + move, _Memory(us, vs, z, g)


def _apply(us: tuple[Tensor, ...], vs: tuple[Tensor, ...], x: Tensor) -> Tensor:
    """(-I + sum_i u_i v_i^T) x for rows x, (B, D)."""
    if not us:
        return -x
    # elementwise sums, not matmul: autocast must not lower the precision
    u, v = torch.stack(us, dim=1), torch.stack(vs, dim=1)
    return (u * (v * x.unsqueeze(1)).sum(-1, keepdim=True)).sum(1) - x
