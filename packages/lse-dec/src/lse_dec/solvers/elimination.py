"""Small symmetric positive definite systems without torch.linalg, which does not export."""

from __future__ import annotations

import torch
from torch import Tensor

from lse_core.constants import constant
from lse_dec.solvers.base import multiply_add

__all__ = ["eliminate", "identity"]


def eliminate(rows: Tensor) -> Tensor:
    """Solve A x = b for a batch of small systems by unrolled Gauss-Jordan elimination.

    No pivoting: the symmetric part of the matrices should be positive definite. Meant for m of 5 or
    less; three operations a row.

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
