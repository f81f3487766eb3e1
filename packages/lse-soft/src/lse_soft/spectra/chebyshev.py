"""Generators that neither commute nor act on one axis each: a polynomial in C, applied without forming C."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lse_soft.spectra.base import Filter, Shape, Spectrum

__all__ = ["ChebyshevSpectrum"]


class _Constraints(Filter):
    """W to C W = sum_k (R_k X_k^T - Y_k^T R_k) with R_k = W X_k - Y_k W."""

    def __init__(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.constant("x", torch.stack(list(inputs)))
        self.constant("y", torch.stack(list(outputs)))
        self.x: Tensor
        self.y: Tensor

    def residuals(self, w: Tensor) -> Tensor:
        """R_k, (K, m, n)."""
        return w @ self.x.to(w.dtype) - self.y.to(w.dtype) @ w

    def forward(self, w: Tensor) -> Tensor:
        """(m, n) to (m, n)."""
        r = self.residuals(w)
        x, y = self.x.to(w.dtype), self.y.to(w.dtype)
        return (r @ x.mT - y.mT @ r).sum(0)


class _ChebyshevFilter(Filter):
    def __init__(self, constraints: _Constraints, coefficients: list[float], top: float) -> None:
        super().__init__()
        self.constraints, self.coefficients, self.top = constraints, coefficients, top

    def forward(self, weight: Tensor) -> Tensor:
        """(m, n) to (m, n), by the three-term recurrence."""

        def step(w: Tensor) -> Tensor:  # C moved onto [-1, 1]
            return (2.0 / self.top) * self.constraints(w) - w

        before, now = weight, step(weight)
        out = self.coefficients[0] * before + self.coefficients[1] * now
        for c in self.coefficients[2:]:
            before, now = now, 2.0 * step(now) - before
            out = out + c * now
        return out


class ChebyshevSpectrum(Spectrum):
    """Equivariant W (m, n) under several generators X_k (n, n) and Y_k (m, m) at once.

    A filter is a polynomial of `degree` in C. It is not exactly zero from b on: what it lets through is
    within the error of the polynomial (`filter_error`), so kappa is measured rather than promised. The
    "hard" threshold is a jump, which polynomials approach slowly; take "cosine".

    Args:
        inputs: X_k, float64.
        outputs: Y_k, as many.
        degree: of the polynomial, at least 1. An application costs 4 K degree matrix products.
    """

    exact = False

    def __init__(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], degree: int = 80) -> None:
        self._constraints = _Constraints(inputs, outputs)
        self.degree = degree
        self.shape = (outputs[0].shape[0], inputs[0].shape[0])
        # ||W X - Y W||^2 <= 2 ||W X||^2 + 2 ||Y W||^2, so nothing lies beyond, where polynomials explode
        both = [sum_of_squares([x.T for x in inputs]), sum_of_squares(outputs)]
        self.top = max(2.0 * sum(float(torch.linalg.eigvalsh(gram)[-1]) for gram in both), 1e-300)

    def values(self) -> Tensor:
        """Quantiles of the singular values, estimated from the moments of C: 201 numbers, ascending.

        The density of states by the kernel polynomial method with eight fixed random vectors; good enough
        to choose b by a share, not exact.
        """
        generator = torch.Generator().manual_seed(0)
        moments = torch.zeros(self.degree + 1, dtype=torch.float64)
        for _ in range(8):
            v = torch.randn(self.shape, generator=generator, dtype=torch.float64).sign()
            before, now = v, (2.0 / self.top) * self._constraints(v) - v
            moments[0] += (v * before).sum() / v.numel()
            moments[1] += (v * now).sum() / v.numel()
            for k in range(2, self.degree + 1):
                before, now = now, 2.0 * ((2.0 / self.top) * self._constraints(now) - now) - before
                moments[k] += (v * now).sum() / v.numel()
        moments = _damped(moments / 8)
        theta = math.pi * (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
        order = torch.arange(self.degree + 1, dtype=torch.float64)
        density = (moments * (1.0 + (order > 0))) @ torch.cos(order.unsqueeze(1) * theta)
        lam = (0.5 * self.top * (1 + torch.cos(theta))).flip(0)
        share = density.clamp_min(0).flip(0).cumsum(0)
        share = share / share[-1]
        wanted = torch.linspace(0, 1, 201, dtype=torch.float64)
        place = torch.searchsorted(share, wanted).clamp_max(1999)
        return lam[place].clamp_min(0).sqrt()

    def filter(self, shape: Shape) -> Filter:
        """The polynomial nearest to `shape` at the Chebyshev nodes."""
        return _ChebyshevFilter(self._constraints, self._coefficients(shape).tolist(), self.top)

    def _coefficients(self, shape: Shape) -> Tensor:
        n = 4 * (self.degree + 1)
        theta = math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
        values = shape((0.5 * self.top * (1 + torch.cos(theta))).clamp_min(0).sqrt())
        k = torch.arange(self.degree + 1, dtype=torch.float64)
        c = 2.0 / n * torch.cos(k.unsqueeze(1) * theta) @ values
        c[0] *= 0.5
        return c

    def filter_error(self, shape: Shape) -> float:
        """Largest difference between `shape` and its polynomial, over the spectrum's interval."""
        theta = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
        k = torch.arange(self.degree + 1, dtype=torch.float64)
        poly = self._coefficients(shape) @ torch.cos(k.unsqueeze(1) * theta)
        exact = shape((0.5 * self.top * (1 + torch.cos(theta))).clamp_min(0).sqrt())
        return float((poly - exact).abs().max())

    def energy(self, weight: Tensor) -> Tensor:
        """sum_k ||W X_k - Y_k W||_F^2."""
        return self._constraints.residuals(weight).square().sum()


def sum_of_squares(matrices: Sequence[Tensor]) -> Tensor:
    """sum_k A_k^T A_k."""
    stacked = torch.cat(list(matrices))
    return stacked.T @ stacked


def _damped(moments: Tensor) -> Tensor:
    """Jackson's damping, which keeps the estimated density from ringing."""
    n = moments.numel()
    k = torch.arange(n, dtype=torch.float64)
    q = math.pi / (n + 1)
    g = ((n - k + 1) * torch.cos(q * k) + torch.sin(q * k) / math.tan(q)) / (n + 1)
    return g * moments
