"""Anderson acceleration, types II and I: the next iterate mixes the last few to shrink the residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lse_core.constants import constant
from lse_core.errors import LSEError
from lse_dec.solvers.base import lengths, multiply_add, positive

__all__ = ["Anderson", "AndersonI", "append", "eliminate", "shortening"]


class _History(NamedTuple):
    """The last iterate and its residual, (B, D), and the last differences of both, (B, k, D)."""

    z: Tensor
    g: Tensor
    dz: Tensor | None
    dg: Tensor | None


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

    Raises:
        LSEError: a setting out of its range.
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

    def init(self, z: Tensor) -> None:
        """No history."""
        return

    def step(self, z: Tensor, fz: Tensor, state: _History | None) -> tuple[Tensor, _History]:
        """Least-squares mix of the last m differences; the first step is a naive one."""
        g = fz - z
        if state is None:
            return z + min(self.damping, self.max_step) * g, _History(z, g, None, None)
        dz = append(state.dz, z - state.z, self.m)
        dg = append(state.dg, g - state.g, self.m)
        # elementwise sums, not matmul: autocast must not lower the precision of the system
        # detached: weights are constants to autograd, whose gradient past convergence is noise;
        # they sum to one, so the unrolled gradient still tends to the implicit one
        fixed, left = dg.detach(), self._left(dz.detach(), dg.detach())
        right = torch.cat([fixed, g.detach().unsqueeze(1)], dim=1)
        system = (left.unsqueeze(2) * right.unsqueeze(1)).sum(-1)  # the right-hand side is its last column
        m = system.shape[1]
        eye = identity(m, m + 1, device=z.device, dtype=z.dtype)
        trace = (system * eye).sum((-1, -2), keepdim=True).abs()
        # the constant only keeps 0/0 away when nothing moved any more
        gamma = eliminate(multiply_add(system, self.regularisation * trace + 1e-30, eye))
        mixed = (torch.add(dz, dg, alpha=self.damping) * gamma.unsqueeze(-1)).sum(1)
        move = (g if self.damping == 1.0 else self.damping * g) - mixed
        return multiply_add(z, move, shortening(move, g, self.max_step)), _History(z, g, dz, dg)

    def _left(self, dz: Tensor, dg: Tensor) -> Tensor:
        """What the mixed residual is made orthogonal to, (B, m, D): its own differences, least squares."""
        return dg


@dataclass(frozen=True)
class AndersonI(Anderson):
    """Anderson mixing of type I (Fang and Saad, 2009), in difference form.

    The mixed residual is made orthogonal to the differences of the iterates, not to those of the
    residuals. Takes as many steps as `Anderson` where the update contracts, and fails less often where
    it hardly does: of 32 solves by an untrained residual DEC that did not contract, 5 failed instead of
    12. Its system is not symmetric, hence the stronger regularisation. Arguments as `Anderson`'s.
    """

    regularisation: float = 1e-5

    def _left(self, dz: Tensor, dg: Tensor) -> Tensor:
        # the sign makes the system positive definite where the update contracts
        return -dz


def append(differences: Tensor | None, new: Tensor, most: int) -> Tensor:
    """`differences` (B, k, D) and one more, (B, D); the last `most` of them."""
    new = new.unsqueeze(1)
    return new if differences is None else torch.cat([differences, new], dim=1)[:, -most:]


def shortening(move: Tensor, g: Tensor, times: float) -> Tensor:
    """Factors (B, 1) that shorten rows of `move` (B, D) to at most `times` the length of the rows of `g`."""
    limit = times * lengths(g.detach())
    return (limit / lengths(move.detach()).clamp_min(1e-30)).clamp_max(1.0)


def eliminate(rows: Tensor) -> Tensor:
    """Solve A x = b for a batch of small systems by unrolled Gauss-Jordan elimination.

    Of plain operations, because torch.linalg does not export. No pivoting: the symmetric part of the matrices
    should be positive definite. Meant for m of 5 or less; three operations a row.

    Args:
        rows: (B, m, m + 1), A, symmetric or not, with b as its last column.

    Returns:
        x, (B, m).
    """
    m = rows.shape[-2]
    eye = identity(m, device=rows.device, dtype=rows.dtype)
    for i in range(m):
        pivot = rows[:, i : i + 1] / rows[:, i : i + 1, i : i + 1]
        # every row loses its share of the pivot row; row i becomes the pivot row itself
        loss = eye[:, i : i + 1] - rows[:, :, i : i + 1]
        rows = multiply_add(rows, loss, pivot)
    return rows[:, :, m]


@constant
def identity(m: int, columns: int | None = None, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(m, columns), as `torch.eye`; never to be written to."""
    return torch.eye(m, columns or m, device=device, dtype=dtype)
