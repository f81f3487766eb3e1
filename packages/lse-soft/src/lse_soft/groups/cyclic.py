"""Quarter and half turns, exact on square grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lse_soft.errors import SoftError
from lse_soft.groups.base import Grid, Group
from lse_soft.spectra import DenseSpectrum, NormalForm, NormalSpectrum, Spectrum
from lse_soft.spectra.dense import array_gram, functional_gram

__all__ = ["Cyclic", "quarter_turn"]


def quarter_turn(side: int) -> Tensor:
    """The permutation of a square grid's pixels by 90 degrees, (side^2, side^2) float64."""
    numbers = torch.arange(side * side).view(side, side)
    return torch.eye(side * side, dtype=torch.float64)[torch.rot90(numbers).reshape(-1)]


@dataclass(frozen=True)
class Cyclic(Group):
    """The cyclic group of order 2 or 4, made of turns of a square grid.

    Distances are in steps of the generator or its inverse (the word metric), and the bound b times their
    number is exact. There are only three singular values, 0, sqrt(2) and 2, so a hard threshold is a
    switch of three positions and no dial.

    Args:
        order: 4, quarter turns, or 2, half turns.
    """

    title: ClassVar[str] = "cyclic"
    kinds: ClassVar[tuple[str, ...]] = ("patch", "convolution", "position", "mixing")

    order: int = 4

    def __post_init__(self) -> None:
        if self.order not in (2, 4):
            raise SoftError(
                f"only turns by 90 and 180 degrees are exact on pixels, order 4 and 2; got {self.order}"
            )

    @property
    def metric(self) -> str:
        """Steps."""
        return f"steps of {360 // self.order} degrees, maximum over the group"

    @property
    def farthest(self) -> float:
        """Half the order."""
        return float(self.order // 2)

    def filter(self, size: Grid, stride: Grid) -> Spectrum | None:
        """Turns of a square window."""
        return None if size == (1, 1) else self.functional(size)

    def functional(self, grid: Grid) -> Spectrum | None:
        """Turns of a square image."""
        return DenseSpectrum(functional_gram([self._difference(grid)]))

    def array(self, grid: Grid) -> Spectrum | None:
        """Turns of a square embedding."""
        return DenseSpectrum(array_gram([self._difference(grid)]))

    def mixing(self, outputs: Grid, inputs: Grid) -> Spectrum | None:
        """Both grids turn; s - 1 is normal."""
        return NormalSpectrum(*(NormalForm.schur(self._difference(grid)) for grid in (inputs, outputs)))

    def _difference(self, grid: Grid) -> Tensor:
        if grid[0] != grid[1]:
            raise SoftError(
                f"turns by 90 and 180 degrees are taken on square grids; got {grid[0]} x {grid[1]}"
            )
        step = quarter_turn(grid[0])
        if self.order == 2:
            step = step @ step
        return step - torch.eye(grid[0] ** 2, dtype=torch.float64)
