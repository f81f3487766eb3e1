"""What every spectrum offers, however its singular values were found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lse_soft.thresholds import ZERO

__all__ = ["Filter", "Shape", "Spectrum", "cleaned"]

Shape = Callable[[Tensor], Tensor]
"""From singular values to factors, elementwise."""


class Filter(nn.Module):
    """A fixed linear map of weights, S_b. Its buffers are not part of any state_dict."""

    def constant(self, name: str, value: Tensor) -> None:
        """Keep `value` as a buffer that moves with the module but is not saved."""
        self.register_buffer(name, value, persistent=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Filter a weight."""
        return super().__call__(*args, **kwargs)


class Spectrum(ABC):
    """The joint Gram matrix C of a group's constraints on a weight, known by its eigenpairs.

    The relative error of a weight W under the group is governed by kappa(W) = sqrt(<W, C W>) / ||W||.
    Weights come in a spectrum's own shape: (..., d) for functionals and arrays (`DenseSpectrum`), one
    matrix (m, n) for equivariant maps (all others).
    """

    exact: bool = True
    """Whether a filter that vanishes from b on gives weights with kappa <= b, up to rounding."""

    @abstractmethod
    def values(self) -> Tensor:
        """All singular values sigma, the roots of the eigenvalues of C: ascending, float64, exact zeros."""

    @abstractmethod
    def filter(self, shape: Shape) -> Filter:
        """The module that multiplies every eigen-direction of C by `shape` of its singular value."""

    @abstractmethod
    def energy(self, weight: Tensor) -> Tensor:
        """<W, C W> summed over leading dimensions, a 0-dim float64."""

    def check(self, weight: Tensor) -> None:  # noqa: B027
        """Raise `ShapeError` if `weight` is not of this spectrum's shape."""

    def kappa(self, weight: Tensor) -> float:
        """sqrt(<W, C W>) / ||W||_F; 0 for a weight that is zero."""
        w = weight.detach().double().cpu()
        norm = float(w.norm())
        return float(self.energy(w).clamp_min(0).sqrt()) / norm if norm > 0 else 0.0


def cleaned(sigma: Tensor) -> Tensor:
    """Singular values with what is zero up to rounding set to exactly zero."""
    largest = float(sigma.max()) if sigma.numel() else 0.0
    return torch.where(sigma <= ZERO * largest, torch.zeros_like(sigma), sigma)
