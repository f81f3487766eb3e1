"""Infinitesimal generators: of rotations and translations on pixel grids, of SO(3) and the Lorentz group.

An action rho(exp tA) = e^{t Abar} on signals x over a grid is rho(g) x = x(g^-1 .), so generators of
motions are minus derivatives along them. Grids are (height, width), read row by row; x points right and
y down, and distances are in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lse_core.errors import unknown_name
from lse_soft.errors import SoftError

__all__ = [
    "central_derivative",
    "forward_difference",
    "growth",
    "lorentz_generators",
    "rotation_generator",
    "so3_generators",
    "spectral_derivative",
    "translation_generators",
]

DERIVATIVES = ("spectral", "central")


def central_derivative(n: int) -> Tensor:
    """(n, n) d/du by central differences, zero beyond the ends: exactly skew.

    Its spectrum is doubled: the checkerboard has derivative zero, so sigma = 0 there is spurious.
    """
    d = torch.zeros(n, n, dtype=torch.float64)
    i = torch.arange(n - 1)
    d[i, i + 1], d[i + 1, i] = 0.5, -0.5
    return d


def spectral_derivative(n: int) -> Tensor:
    """(n, n) d/du of the trigonometric interpolant of period n: exactly skew, exact on waves below n/2.

    Of an even number of pixels the wave of period two has derivative zero.
    """
    k = torch.arange(n, dtype=torch.float64)
    lag = k.unsqueeze(1) - k
    signs = torch.where(lag.long() % 2 == 0, 1.0, -1.0).double()
    angle = math.pi * torch.where(lag == 0, 0.5 * n, lag) / n
    # for odd n the kernel is 1 / sin, for even n 1 / tan
    kernel = 1.0 / torch.sin(angle) if n % 2 else 1.0 / torch.tan(angle)
    return torch.where(lag == 0, torch.zeros_like(lag), math.pi / n * signs * kernel)


def forward_difference(n: int) -> Tensor:
    """(n - 1, n) x_{i+1} - x_i."""
    d = torch.zeros(n - 1, n, dtype=torch.float64)
    i = torch.arange(n - 1)
    d[i, i], d[i, i + 1] = -1.0, 1.0
    return d


def _derivative(n: int, kind: str) -> Tensor:
    if kind not in DERIVATIVES:
        raise unknown_name("derivative", kind, DERIVATIVES)
    return spectral_derivative(n) if kind == "spectral" else central_derivative(n)


def translation_generators(grid: tuple[int, int], derivative: str = "spectral") -> tuple[Tensor, Tensor]:
    """Generators of translations by one pixel to the right and down, (n, n) float64 each, n = h w.

    Args:
        grid: (height, width).
        derivative: "spectral" (periodic) or "central" (zero outside); both give skew matrices.
    """
    h, w = grid
    d_x = torch.kron(torch.eye(h, dtype=torch.float64), _derivative(w, derivative))
    d_y = torch.kron(_derivative(h, derivative), torch.eye(w, dtype=torch.float64))
    return -d_x, -d_y


def rotation_generator(grid: tuple[int, int], derivative: str = "spectral") -> Tensor:
    """Generator of rotations about the grid's centre, (n, n) float64, one radian at t = 1; exactly skew.

    Y D_x - X D_y turns x towards y, clockwise on the screen. On pixels it is a poor model of
    resampled rotations (docs/results/soft.md): half of its kernel is spurious.

    Args:
        grid: (height, width).
        derivative: see `translation_generators`.
    """
    h, w = grid
    x = torch.arange(w, dtype=torch.float64) - 0.5 * (w - 1)
    y = torch.arange(h, dtype=torch.float64) - 0.5 * (h - 1)
    left, up = translation_generators(grid, derivative)
    # X commutes with D_y and Y with D_x, so the products of a diagonal and a skew matrix are skew
    return x.repeat(h).unsqueeze(1) * up - y.repeat_interleave(w).unsqueeze(1) * left


def so3_generators() -> tuple[Tensor, Tensor, Tensor]:
    """J_x, J_y, J_z on vectors of R^3: skew (3, 3) float64, (J_k)_ij = -epsilon_kij."""
    made = []
    for k in range(3):
        j = torch.zeros(3, 3, dtype=torch.float64)
        a, b = (k + 1) % 3, (k + 2) % 3
        j[a, b], j[b, a] = -1.0, 1.0
        made.append(j)
    return made[0], made[1], made[2]


def lorentz_generators() -> tuple[Tensor, ...]:
    """Three rotations (skew), then three boosts (symmetric), on (t, x, y, z): (4, 4) float64 each."""
    made = []
    for j in so3_generators():
        wide = torch.zeros(4, 4, dtype=torch.float64)
        wide[1:, 1:] = j
        made.append(wide)
    for k in range(1, 4):
        boost = torch.zeros(4, 4, dtype=torch.float64)
        boost[0, k] = boost[k, 0] = 1.0
        made.append(boost)
    return tuple(made)


def growth(inputs: Tensor, outputs: Tensor | None = None) -> float:
    """By how much a non-orthogonal action can stretch the bound kappa ||t||, at least 0.

    With mu = lambda_max((A + A^T) / 2), ||e^{sA}|| <= e^{s mu}. Integrating these over the path gives
    (e^mu - 1) / mu for an invariant map and, for an equivariant one, the logarithmic mean
    (e^{mu_X} - e^{mu_Y}) / (mu_X - mu_Y), which is e^mu where both are equal. (e^mu - 1) / mu with the
    larger mu would be too small there: X = Y = diag(1, 0.9) is a counterexample.

    Args:
        inputs: sum_k t_k X_k, the element's logarithm, (n, n).
        outputs: sum_k t_k Y_k; None for an invariant map.

    Returns:
        1 for skew generators.

    Raises:
        SoftError: not square matrices.
    """
    if inputs.ndim != 2 or inputs.shape[0] != inputs.shape[1]:
        raise SoftError(f"the logarithm of a group element is a square matrix; got {tuple(inputs.shape)}")
    mu_x = _log_norm(inputs)
    mu_y = 0.0 if outputs is None else _log_norm(outputs)
    gap = mu_x - mu_y
    if abs(gap) < 1e-9:
        return math.exp(max(mu_x, mu_y))
    return (math.exp(mu_x) - math.exp(mu_y)) / gap


def _log_norm(a: Tensor) -> float:
    return float(torch.linalg.eigvalsh(0.5 * (a + a.T).double())[-1])
