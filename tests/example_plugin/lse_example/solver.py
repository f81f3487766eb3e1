"""A fixed-point solver: relaxed iteration with momentum."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lse_core.errors import LSEError


@dataclass(frozen=True)
class HeavyBall:
    """Polyak's heavy ball: a share of the residual, and a share of the last move once more.

    Args:
        relaxation: share of the residual, above 0; it may exceed 1 where the update contracts slowly.
        momentum: share of the last move, at least 0 and below 1.
    """

    relaxation: float = 1.0
    momentum: float = 0.25

    def __post_init__(self) -> None:
        if not self.relaxation > 0.0:
            raise LSEError(f"heavy-ball solver: relaxation must be above 0; got {self.relaxation!r}")
        if not 0.0 <= self.momentum < 1.0:
            raise LSEError(
                f"heavy-ball solver: momentum must be at least 0 and below 1; got {self.momentum!r}"
            )

    def init(self, z: Tensor) -> Tensor:
        """No move yet."""
        return z.new_zeros(z.shape)

    def step(self, z: Tensor, fz: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next iterate, and the move that led to it."""
        move = self.relaxation * (fz - z) + self.momentum * state
        return z + move, move
