"""Small symmetric positive definite systems without torch.linalg, which does not export."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["solve_spd"]


def solve_spd(a: Tensor, b: Tensor) -> Tensor:
    """Solve A x = b for a batch of small systems by unrolled Gauss-Jordan elimination.

    No pivoting: the symmetric part of the matrices should be positive definite. Meant for m of 5 or
    less; five ops a row.

    Args:
        a: (B, m, m), symmetric or not.
        b: (B, m).

    Returns:
        x, (B, m).
    """
    m = a.shape[-1]
    rows = torch.cat([a, b.unsqueeze(-1)], dim=-1)
    eye = torch.eye(m, device=a.device, dtype=a.dtype)
    for i in range(m):
        pivot = rows[:, i : i + 1] / rows[:, i : i + 1, i : i + 1]
        # every row loses its share of the pivot row; row i becomes the pivot row itself
        share = rows[:, :, i : i + 1] - eye[:, i : i + 1]
        rows = rows - share * pivot
    return rows[:, :, m]
