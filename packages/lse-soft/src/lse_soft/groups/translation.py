"""Translations of the plane."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lse_soft.errors import SoftError
from lse_soft.generators import spectral_derivative
from lse_soft.groups.base import Grid, Group
from lse_soft.sampled import affine_difference, angles, sampled_array_gram, sampled_functional_gram
from lse_soft.spectra import DenseSpectrum, KroneckerSpectrum, Spectrum
from lse_soft.spectra.dense import equivariance_gram

__all__ = ["Translation"]


@dataclass(frozen=True)
class Translation(Group):
    """Translations along either axis by up to `pixels`.

    Softening filters by it is a low-pass, the blur that makes strided networks steadier. Convolutions of
    stride 1 are equivariant as they are and left alone. Maps between grids use periodic translations.

    Args:
        pixels: largest shift, above 0, in pixels of the weight's own grid.
        samples: shifts along each axis that stand for all, at least 2.
    """

    title: ClassVar[str] = "translation"
    kinds: ClassVar[tuple[str, ...]] = ("patch", "convolution", "mixing")

    pixels: float = 1.0
    samples: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.pixels < math.inf:
            raise SoftError(f"pixels must be above 0; got {self.pixels}")
        if self.samples < 2:
            raise SoftError(f"samples must be at least 2; got {self.samples}")

    @property
    def metric(self) -> str:
        """Pixels."""
        return (
            f"pixels, root mean square over shifts along an axis up to {self.pixels:g} "
            "(token mixing: maximum over periodic shifts)"
        )

    @property
    def farthest(self) -> float:
        """The largest shift."""
        return self.pixels

    def filter(self, size: Grid, stride: Grid) -> Spectrum | None:
        """Shifts of the signal below a strided filter; None for stride 1."""
        if stride == (1, 1):
            return None
        return DenseSpectrum(sampled_functional_gram(self._samples(size, math.ceil(self.pixels) + 1)))

    def functional(self, grid: Grid) -> Spectrum | None:
        """Shifts of an image that is zero outside."""
        return DenseSpectrum(sampled_functional_gram(self._samples(grid, 0)))

    def array(self, grid: Grid) -> Spectrum | None:
        """Shifts of an embedding that goes on beyond its border."""
        return DenseSpectrum(sampled_array_gram(self._samples(grid, 0, border=True)))

    def mixing(self, outputs: Grid, inputs: Grid) -> Spectrum | None:
        """Periodic shifts, so convolutions on a torus; the grids must be one.

        Raises:
            SoftError: grids of different size.
        """
        if outputs != inputs:
            raise SoftError(f"translations mix tokens within one grid; got {inputs} and {outputs}")
        grams = []
        for n in inputs:
            d = spectral_derivative(n)
            grams.append(equivariance_gram([d], [d]))
        return KroneckerSpectrum(grams[0], grams[1], outputs, inputs)

    def _samples(self, grid: Grid, pad: int, border: bool = False) -> Iterator[tuple[Tensor, float]]:
        for axis in (0, 1):
            for t in angles(self.pixels, self.samples):
                shift = torch.zeros(2, dtype=torch.float64)
                shift[axis] = -t
                yield affine_difference(grid, pad, torch.eye(2), shift, border=border), abs(t)
