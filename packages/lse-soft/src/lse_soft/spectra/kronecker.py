"""Separable groups: generators that act on one axis of a grid each, so that C is a Kronecker sum."""

from __future__ import annotations

import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_soft.spectra.base import Filter, Shape, Spectrum, cleaned

__all__ = ["KroneckerSpectrum"]


def _pairs(weight: Tensor, out: tuple[int, int], inp: tuple[int, int]) -> Tensor:
    """W[(y_o, x_o), (y_i, x_i)] as T[(y_o, y_i), (x_o, x_i)]."""
    t = weight.reshape(*out, *inp).permute(0, 2, 1, 3)
    return t.reshape(out[0] * inp[0], out[1] * inp[1])


def _matrix(pairs: Tensor, out: tuple[int, int], inp: tuple[int, int]) -> Tensor:
    """The inverse of `_pairs`."""
    t = pairs.reshape(out[0], inp[0], out[1], inp[1]).permute(0, 2, 1, 3)
    return t.reshape(out[0] * out[1], inp[0] * inp[1])


class _KroneckerFilter(Filter):
    def __init__(
        self, y: Tensor, x: Tensor, mask: Tensor, out: tuple[int, int], inp: tuple[int, int]
    ) -> None:
        super().__init__()
        self.out, self.inp = out, inp
        self.constant("v_y", y)
        self.constant("v_x", x)
        self.constant("mask", mask)
        self.v_y: Tensor
        self.v_x: Tensor
        self.mask: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """(m, n) to (m, n), rows and columns of W being pixels row by row."""
        v_y, v_x = self.v_y.to(weight.dtype), self.v_x.to(weight.dtype)
        t = v_y.T @ _pairs(weight, self.out, self.inp) @ v_x
        t = v_y @ (self.mask.to(weight.dtype) * t) @ v_x.T
        return _matrix(t, self.out, self.inp)


class KroneckerSpectrum(Spectrum):
    """C = C_y (x) I + I (x) C_x, exactly, from two small eigen-decompositions.

    With eigenvalues lambda_i of C_y and mu_j of C_x the singular values are sqrt(lambda_i + mu_j). Two
    decompositions of n^2 x n^2 matrices stand for one of n^4 x n^4.

    Args:
        gram_y: (h_o h_i, h_o h_i), the constraints on an (h_o, h_i) matrix along the vertical axis, read
            row by row; see `lse_soft.spectra.dense.equivariance_gram`.
        gram_x: the same along the horizontal axis.
        outputs: (height, width) of the output grid.
        inputs: (height, width) of the input grid. (1, 1) for functionals and arrays over `outputs`.
    """

    def __init__(
        self, gram_y: Tensor, gram_x: Tensor, outputs: tuple[int, int], inputs: tuple[int, int]
    ) -> None:
        for name, gram, axis in (("vertical", gram_y, 0), ("horizontal", gram_x, 1)):
            size = outputs[axis] * inputs[axis]
            if tuple(gram.shape) != (size, size):
                raise ShapeError(f"the {name} Gram matrix must be {size} x {size}; got {tuple(gram.shape)}")
        self.outputs, self.inputs = outputs, inputs
        self.gram_y, self.gram_x = (0.5 * (g + g.T).double() for g in (gram_y, gram_x))
        low, self.v_y = torch.linalg.eigh(self.gram_y)
        high, self.v_x = torch.linalg.eigh(self.gram_x)
        self._sigma = cleaned((low.clamp_min(0).unsqueeze(1) + high.clamp_min(0)).sqrt())

    def values(self) -> Tensor:
        """All m n singular values."""
        return self._sigma.reshape(-1).sort().values

    def filter(self, shape: Shape) -> Filter:
        """Four small products and a mask."""
        return _KroneckerFilter(self.v_y, self.v_x, shape(self._sigma), self.outputs, self.inputs)

    def energy(self, weight: Tensor) -> Tensor:
        """<W, C W> of one matrix."""
        t = _pairs(weight, self.outputs, self.inputs)
        return ((self.gram_y @ t + t @ self.gram_x) * t).sum()
