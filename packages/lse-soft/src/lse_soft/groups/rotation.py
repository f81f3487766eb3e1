"""Rotations of the plane about the centre of a filter or of a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lse_core.errors import unknown_name
from lse_soft.circular import harmonic_spectrum
from lse_soft.errors import SoftError
from lse_soft.generators import rotation_generator
from lse_soft.groups.base import Grid, Group
from lse_soft.sampled import (
    affine_difference,
    angles,
    sampled_array_gram,
    sampled_functional_gram,
    turn,
)
from lse_soft.spectra import DenseSpectrum, NormalForm, NormalSpectrum, Spectrum
from lse_soft.spectra.dense import array_gram, functional_gram

__all__ = ["Rotation"]

METHODS = ("sampled", "harmonics", "lie")


@dataclass(frozen=True)
class Rotation(Group):
    """Rotations by up to `degrees`, bilinear reading.

    Maps between grids (token mixing) always use the generator, with spectral derivatives: the sampled
    constraints of a plane's rotations do not fall apart into small ones.

    Args:
        degrees: largest angle, within (0, 180].
        samples: how many angles stand for all, at least 2.
        method: "sampled", differences of real resampling; "harmonics", circular harmonics (filters and
            functionals alone); "lie", the generator on pixels.
        derivative: of the generator, "spectral" or "central".
    """

    title: ClassVar[str] = "rotation"
    kinds: ClassVar[tuple[str, ...]] = ("patch", "convolution", "position", "mixing")

    degrees: float = 180.0
    samples: int = 64
    method: str = "sampled"
    derivative: str = "spectral"

    def __post_init__(self) -> None:
        if not 0 < self.degrees <= 180:
            raise SoftError(f"degrees must lie within (0, 180]; got {self.degrees}")
        if self.samples < 2:
            raise SoftError(f"samples must be at least 2; got {self.samples}")
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)

    @property
    def metric(self) -> str:
        """Radians."""
        if self.method == "sampled":
            return f"radians, root mean square over rotations up to {self.degrees:g} degrees"
        return "radians, maximum over all rotations as generated"

    @property
    def farthest(self) -> float:
        """The largest angle."""
        return math.radians(self.degrees)

    def filter(self, size: Grid, stride: Grid) -> Spectrum | None:
        """Rotations about the window's centre; the signal continues beyond the window."""
        # corners of the window come from outside it
        return self._functional(size, pad=math.ceil(0.5 * (math.hypot(*size) - min(size))) + 1)

    def functional(self, grid: Grid) -> Spectrum | None:
        """Rotations about the centre of an image that is zero outside."""
        return self._functional(grid, pad=0)

    def _functional(self, grid: Grid, pad: int) -> Spectrum | None:
        if grid == (1, 1):
            return None
        if self.method == "harmonics":
            return harmonic_spectrum(grid)
        if self.method == "lie":
            return DenseSpectrum(functional_gram([rotation_generator(grid, self.derivative)]))
        return DenseSpectrum(
            sampled_functional_gram((affine_difference(grid, pad, turn(-t)), abs(t)) for t in self._angles())
        )

    def array(self, grid: Grid) -> Spectrum | None:
        """Rotations of an embedding that goes on beyond its border."""
        if self.method == "lie":
            return DenseSpectrum(array_gram([rotation_generator(grid, self.derivative)]))
        return DenseSpectrum(
            sampled_array_gram(
                (affine_difference(grid, 0, turn(-t), border=True), abs(t)) for t in self._angles()
            )
        )

    def mixing(self, outputs: Grid, inputs: Grid) -> Spectrum | None:
        """Both grids turn about their centres."""
        x = NormalForm.skew(rotation_generator(inputs, self.derivative))
        y = x if outputs == inputs else NormalForm.skew(rotation_generator(outputs, self.derivative))
        return NormalSpectrum(x, y)

    def _angles(self) -> list[float]:
        return angles(math.radians(self.degrees), self.samples)
