"""Local scaling of functions on [0, 1]: the discrete Legendre operator and its Gram polynomials."""

from __future__ import annotations

import torch
from torch import Tensor

from lse_soft.generators import forward_difference
from lse_soft.spectra.dense import equivariance_gram

__all__ = ["brownian_bridge", "gram_matrix", "gram_polynomials", "scaling_fields", "scaling_mixing_gram"]


def gram_matrix(n: int) -> Tensor:
    """D^T diag(i (n - i)) D with unit forward differences D, i = 1 ... n - 1: (n, n) float64.

    The discrete form of sum_k ||v_k p'||^2 = integral of x (1 - x) p'(x)^2, over all vector fields v_k of an
    orthonormal basis of H^1_0: what local scaling does to an array p. Its eigenvalues are exactly
    k (k + 1), k = 0 ... n - 1. Points are the centres of n cells, (i + 1/2) / n.
    """
    i = torch.arange(1, n, dtype=torch.float64)
    d = forward_difference(n)
    return d.T @ ((i * (n - i)).unsqueeze(1) * d)


def gram_polynomials(n: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors of `gram_matrix`, (n, n) orthonormal columns by degree, and sigma_k = sqrt(k (k + 1))."""
    k = torch.arange(n, dtype=torch.float64)
    return torch.linalg.eigh(gram_matrix(n)).eigenvectors, (k * (k + 1)).sqrt()


def brownian_bridge(n: int) -> Tensor:
    """min(x, y) - x y at x, y = 0, 1/(n-1), ..., 1: the reproducing kernel of H^1_0, (n, n) float64."""
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    return torch.minimum(x.unsqueeze(1), x) - x.unsqueeze(1) * x


def scaling_fields(n: int) -> list[Tensor]:
    """Generators -v_k d/dx on n pixels (ends included), one for each field v_k, (n, n) float64 each.

    The fields are an orthonormal basis of those that live on the pixels: sum_k v_k(x) v_k(y) is the
    Brownian bridge. Derivatives are central, one-sided at the ends, where all fields vanish.
    """
    values, vectors = torch.linalg.eigh(brownian_bridge(n))
    fields = vectors * values.clamp_min(0).sqrt()
    d = torch.zeros(n, n, dtype=torch.float64)
    i = torch.arange(1, n - 1)
    d[i, i + 1], d[i, i - 1] = 0.5 * (n - 1), -0.5 * (n - 1)
    return [-fields[:, k].unsqueeze(1) * d for k in range(n) if values[k] > 1e-12]


def scaling_mixing_gram(n: int) -> Tensor:
    """C of equivariant maps between n pixels along one axis, under all fields at once, (n^2, n^2)."""
    fields = scaling_fields(n)
    return equivariance_gram(fields, fields)
