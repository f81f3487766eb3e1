"""The general route: one eigen-decomposition of the whole Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_soft.spectra.base import Filter, Shape, Spectrum, cleaned

__all__ = ["DenseFilter", "DenseSpectrum", "array_gram", "equivariance_gram", "functional_gram"]


NARROW = 64
"""Rows up to this length are multiplied as columns, which matrix products on CPUs do faster."""


class DenseFilter(Filter):
    """w to w M for rows w, M (d, d).

    Args:
        matrix: M.
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.constant("matrix", matrix)
        self.matrix: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """(..., d) to (..., d)."""
        matrix = self.matrix.to(weight.dtype)
        if weight.ndim == 2 and matrix.shape[0] <= NARROW:
            return (matrix.T @ weight.T).T.contiguous()
        return weight @ matrix


class DenseSpectrum(Spectrum):
    """Eigenpairs of a Gram matrix C (d, d), symmetric and positive semidefinite.

    Args:
        gram: C, floating; computed with in float64 on the CPU.
    """

    def __init__(self, gram: Tensor) -> None:
        if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
            raise ShapeError(f"a Gram matrix is square; got {tuple(gram.shape)}")
        self.gram = gram.detach().double().cpu()
        self.gram = 0.5 * (self.gram + self.gram.T)
        values, self.vectors = torch.linalg.eigh(self.gram)
        self._values = cleaned(values.clamp_min(0).sqrt())

    @classmethod
    def from_basis(cls, vectors: Tensor, values: Tensor) -> DenseSpectrum:
        """A spectrum given by its orthonormal eigenvectors (d, d), in columns, and singular values (d,)."""
        return cls(vectors @ torch.diag(values.square()) @ vectors.T)

    def values(self) -> Tensor:
        """All d singular values."""
        return self._values

    def filter(self, shape: Shape) -> Filter:
        """One product with a (d, d) matrix, applied to the last dimension."""
        return DenseFilter((self.vectors * shape(self._values)) @ self.vectors.T)

    def energy(self, weight: Tensor) -> Tensor:
        """Sum of w^T C w over the rows of (..., d)."""
        return ((weight @ self.gram) * weight).sum()


def functional_gram(generators: Sequence[Tensor]) -> Tensor:
    """C = sum_k A_k A_k^T: what moves an invariant functional w, y = w^T x.

    Args:
        generators: matrices (d, e) of float64. With e > d the signal reaches beyond the weight's support.
    """
    return sum((a @ a.T for a in generators[1:]), generators[0] @ generators[0].T)


def array_gram(generators: Sequence[Tensor]) -> Tensor:
    """C = sum_k A_k^T A_k: what moves an invariant array p, such as a position embedding.

    The other side than `functional_gram`: the action is on p itself.
    """
    return sum((a.T @ a for a in generators[1:]), generators[0].T @ generators[0])


def equivariance_gram(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], weights: Sequence[float] | None = None
) -> Tensor:
    """C of an equivariant W (m, n), W X_k = Y_k W for all k, on W read row by row.

    L_k = I (x) X_k^T - Y_k (x) I, so that L_k vec(W) = vec(W X_k - Y_k W), and C = sum_k w_k L_k^T L_k. (With
    columns stacked the factors change places.)

    Args:
        inputs: X_k (n, n), float64.
        outputs: Y_k (m, m), as many.
        weights: w_k; None is 1 each.

    Returns:
        (m n, m n) float64.
    """
    x, y = torch.stack(list(inputs)).double(), torch.stack(list(outputs)).double()
    w = torch.ones(len(x)).double() if weights is None else torch.tensor(list(weights), dtype=torch.float64)
    n, m = x.shape[1], y.shape[1]
    weighted = w.view(-1, 1, 1) * x
    one_n, one_m = torch.eye(n, dtype=torch.float64), torch.eye(m, dtype=torch.float64)
    # the four terms of L^T L: two Kronecker products with the identity, and two sums of them in one product
    gram = torch.kron(one_m, (weighted @ x.mT).sum(0))
    gram += torch.kron((y.mT @ (w.view(-1, 1, 1) * y)).sum(0), one_n)
    cross = (y.flatten(1).T @ weighted.flatten(1)).view(m, m, n, n).permute(0, 2, 1, 3).reshape(m * n, m * n)
    gram -= cross
    gram -= cross.T
    return gram
