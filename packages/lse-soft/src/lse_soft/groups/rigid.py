"""Rotations and translations of the plane together, SE(2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lse_soft.errors import SoftError
from lse_soft.generators import rotation_generator, translation_generators
from lse_soft.groups.base import Grid, Group
from lse_soft.sampled import affine_difference, sampled_array_gram, sampled_functional_gram, turn
from lse_soft.spectra import ChebyshevSpectrum, DenseSpectrum, Spectrum

__all__ = ["Rigid"]


@dataclass(frozen=True)
class Rigid(Group):
    """Rotations by up to `degrees` and shifts by up to `pixels`; a shift by `pixels` counts as one radian.

    The generators neither commute nor act on one axis each, so maps between grids are filtered by a
    Chebyshev polynomial.

    Args:
        degrees: largest angle, within (0, 180].
        pixels: largest shift along an axis, above 0.
        samples: elements that stand for all, at least 2.
        degree: of the polynomial, for maps between grids.
        seed: of the elements drawn.
    """

    title: ClassVar[str] = "rigid"
    kinds: ClassVar[tuple[str, ...]] = ("patch", "convolution", "mixing")

    degrees: float = 180.0
    pixels: float = 1.0
    samples: int = 128
    degree: int = 80
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.degrees <= 180:
            raise SoftError(f"degrees must lie within (0, 180]; got {self.degrees}")
        if not 0 < self.pixels < math.inf:
            raise SoftError(f"pixels must be above 0; got {self.pixels}")
        if self.samples < 2 or self.degree < 1:
            raise SoftError("samples must be at least 2 and degree at least 1")

    @property
    def metric(self) -> str:
        """Radians and shifts together."""
        return (
            f"root of radians^2 + (shift / {self.pixels:g} pixels)^2, root mean square over motions "
            "(token mixing: maximum, up to the polynomial's error)"
        )

    def filter(self, size: Grid, stride: Grid) -> Spectrum | None:
        """Motions of the signal below a window."""
        pad = math.ceil(0.5 * (math.hypot(*size) - min(size)) + self.pixels) + 1
        return DenseSpectrum(sampled_functional_gram(self._samples(size, pad)))

    def functional(self, grid: Grid) -> Spectrum | None:
        """Motions of an image that is zero outside."""
        return DenseSpectrum(sampled_functional_gram(self._samples(grid, 0)))

    def array(self, grid: Grid) -> Spectrum | None:
        """Motions of an embedding that goes on beyond its border."""
        return DenseSpectrum(sampled_array_gram(self._samples(grid, 0, border=True)))

    def mixing(self, outputs: Grid, inputs: Grid) -> Spectrum | None:
        """All three generators at once, by a polynomial in C."""
        return ChebyshevSpectrum(self._generators(inputs), self._generators(outputs), self.degree)

    def _generators(self, grid: Grid) -> list[Tensor]:
        t_x, t_y = translation_generators(grid)
        return [rotation_generator(grid), self.pixels * t_x, self.pixels * t_y]

    def _samples(self, grid: Grid, pad: int, border: bool = False) -> Iterator[tuple[Tensor, float]]:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = 2 * torch.rand(self.samples, 3, generator=generator, dtype=torch.float64) - 1
        for u in drawn:
            t = math.radians(self.degrees) * float(u[0])
            distance = math.hypot(t, float(u[1:].norm()))
            yield affine_difference(grid, pad, turn(-t), -self.pixels * u[1:], border=border), distance
