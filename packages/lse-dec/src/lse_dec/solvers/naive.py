"""Naive (Picard) iteration: z <- (1 - d) z + d f(z)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lse_dec.solvers.settings import positive

__all__ = ["Naive"]


@dataclass(frozen=True)
class Naive:
    """Damped fixed-point iteration; converges where the update contracts.

    Args:
        damping: share of the new value, above 0; 1 is undamped.
    """

    damping: float = 1.0

    def __post_init__(self) -> None:
        positive("naive", "damping", self.damping)

    def init(self, z: Tensor) -> None:
        """Nothing to remember."""
        return

    def step(self, z: Tensor, fz: Tensor, state: None) -> tuple[Tensor, None]:
        """The damped image."""
        return (fz if self.damping == 1.0 else z + self.damping * (fz - z)), None
