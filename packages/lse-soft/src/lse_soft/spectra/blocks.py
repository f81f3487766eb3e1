"""Maps between stacks of small representations: the constraints fall apart into small blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_soft.spectra.base import Filter, Shape, Spectrum
from lse_soft.spectra.dense import DenseSpectrum

__all__ = ["BlockSpectrum"]


class _BlockFilter(Filter):
    def __init__(self, rows: list[list[int]], columns: list[list[int]], filters: list[Filter]) -> None:
        super().__init__()
        self.filters = torch.nn.ModuleList(filters)
        for i, (r, c) in enumerate(zip(rows, columns, strict=True)):
            self.constant(f"rows_{i}", torch.tensor(r))
            self.constant(f"columns_{i}", torch.tensor(c))

    def forward(self, weight: Tensor) -> Tensor:
        """(m, n) to (m, n)."""
        out = weight
        for i, filter_ in enumerate(self.filters):
            rows, columns = getattr(self, f"rows_{i}"), getattr(self, f"columns_{i}")
            index = rows[:, None, :, None], columns[None, :, None, :]
            block = weight[index]
            out = out.index_put(index, filter_(block.flatten(2)).view_as(block))
        return out


class BlockSpectrum(Spectrum):
    """Equivariant W (m, n) between direct sums of irreducible representations.

    Every pair (output block, input block) is constrained on its own, and pairs of one kind alike.

    Args:
        outputs: one (kind, size) per block of the output, in the order of the features.
        inputs: the same of the input.
        grams: C on a block (size_out, size_in) read row by row, by (output kind, input kind).
    """

    def __init__(
        self,
        outputs: Sequence[tuple[str, int]],
        inputs: Sequence[tuple[str, int]],
        grams: Mapping[tuple[str, str], Tensor],
    ) -> None:
        self.shape = (sum(size for _, size in outputs), sum(size for _, size in inputs))
        self._rows, self._columns = _places(outputs), _places(inputs)
        self._spectra = {
            (o, i): DenseSpectrum(grams[o, i]) for o in self._rows for i in self._columns if (o, i) in grams
        }

    def values(self) -> Tensor:
        """All m n singular values."""
        found = [
            spectrum.values().repeat(len(self._rows[o]) * len(self._columns[i]))
            for (o, i), spectrum in self._spectra.items()
        ]
        return torch.cat(found).sort().values

    def check(self, weight: Tensor) -> None:
        """Raise `ShapeError` if `weight` has other features."""
        if tuple(weight.shape) != self.shape:
            raise ShapeError(f"expected a weight of shape {self.shape}; got {tuple(weight.shape)}")

    def filter(self, shape: Shape) -> Filter:
        """One small product for each kind of block."""
        return _BlockFilter(
            [self._rows[o] for o, _ in self._spectra],  # type: ignore[misc]
            [self._columns[i] for _, i in self._spectra],  # type: ignore[misc]
            [spectrum.filter(shape) for spectrum in self._spectra.values()],
        )

    def energy(self, weight: Tensor) -> Tensor:
        """<W, C W> of one matrix."""
        self.check(weight)
        total = torch.zeros((), dtype=weight.dtype)
        for (o, i), spectrum in self._spectra.items():
            rows, columns = torch.tensor(self._rows[o]), torch.tensor(self._columns[i])
            block = weight[rows[:, None, :, None], columns[None, :, None, :]]
            total = total + spectrum.energy(block.flatten(2))
        return total


def _places(blocks: Sequence[tuple[str, int]]) -> dict[str, list[list[int]]]:
    """Where the blocks of each kind lie: lists of feature numbers."""
    found: dict[str, list[list[int]]] = {}
    start = 0
    for kind, size in blocks:
        found.setdefault(kind, []).append(list(range(start, start + size)))
        start += size
    return found
