"""Circular harmonics on a square window: a rotation-adapted basis without derivatives on pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lse_soft.spectra.dense import DenseSpectrum

__all__ = ["circular_harmonics", "harmonic_spectrum"]

RING = 0.8
"""Width of a ring's profile in pixels."""


def circular_harmonics(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the functions on a grid, ordered by angular frequency.

    Rings r(|u|) times cos(m phi) and sin(m phi), orthogonalised in the order of m; a rotation by t moves
    such a function by m t at most. m grows with the radius of the ring, as far as its pixels resolve it.

    Args:
        grid: (height, width).

    Returns:
        (n, n) orthonormal columns, and (n,) the sigma of each: m, or one above the largest m for the
        directions that no harmonic reaches (the corners' among them).
    """
    h, w = grid
    x = (torch.arange(w, dtype=torch.float64) - 0.5 * (w - 1)).repeat(h)
    y = (torch.arange(h, dtype=torch.float64) - 0.5 * (h - 1)).repeat_interleave(w)
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    made: list[tuple[int, Tensor]] = []
    # rings that leave the window somewhere are not rotated onto themselves
    rings = torch.arange(0.5 * (min(h, w) % 2 == 0), 0.5 * min(h, w) - 0.5 + 1e-9, 1.0)
    for ring in rings.tolist():
        profile = torch.exp(-0.5 * ((radius - ring) / RING).square())
        for m in range(math.floor(math.pi * ring) + 1):
            made.append((m, profile * torch.cos(m * angle)))
            if m:
                made.append((m, profile * torch.sin(m * angle)))
    made.sort(key=lambda pair: pair[0])
    basis: list[Tensor] = []
    sigma: list[float] = []
    for m, f in made:
        size = f.norm()
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for b in basis:
                f = f - (b @ f) * b
        if f.norm() > 0.1 * size and len(basis) < h * w:
            basis.append(f / f.norm())
            sigma.append(float(m))
    known = torch.stack(basis, 1)
    rest = torch.linalg.eigh(torch.eye(h * w, dtype=torch.float64) - known @ known.T).eigenvectors
    rest = rest[:, len(basis) :]
    beyond = torch.full((rest.shape[1],), max(sigma) + 1.0, dtype=torch.float64)
    return torch.cat([known, rest], 1), torch.cat([torch.tensor(sigma, dtype=torch.float64), beyond])


def harmonic_spectrum(grid: tuple[int, int]) -> DenseSpectrum:
    """Functionals on `grid` with the singular values of `circular_harmonics`."""
    return DenseSpectrum.from_basis(*circular_harmonics(grid))
