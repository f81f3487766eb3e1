"""Metrics of a canonicalizer: did its solve converge, and does its answer move with the input?"""

from __future__ import annotations

import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_core.separable import SeparableWarp

__all__ = ["canonicalizer_equivariance_error", "fixed_point_residual"]


def fixed_point_residual(state: Tensor, updated: Tensor, *, relative: bool = False) -> Tensor:
    """How far a state is from a fixed point of its update (Eq. 15), (B,), root mean square.

    Args:
        state: (B, ...) z.
        updated: (B, ...) H(z).
        relative: divide by the root mean square of H(z), 0 where both are 0.

    Raises:
        ShapeError: the two differ in shape.
    """
    if state.shape != updated.shape or state.ndim < 2:
        raise ShapeError(
            f"state {tuple(state.shape)} and its update {tuple(updated.shape)} must agree, batch first"
        )
    residual = _rms(updated - state)
    if not relative:
        return residual
    size = _rms(updated)
    return residual / torch.where(size > 0, size, torch.ones_like(size))


def canonicalizer_equivariance_error(
    of_input: SeparableWarp, of_scaled: SeparableWarp, g: SeparableWarp, kind: str = "max"
) -> Tensor:
    """How far h(S(F; g)) is from g h(F), Eq. 5, (B,): 0 for an equivariant canonicalizer.

    Args:
        of_input: h(F), what the canonicalizer finds for the input.
        of_scaled: h(S(F; g)), what it finds for the scaled input.
        g: the warp the input was scaled with.
        kind: distance between the two as in `SeparableWarp.distance`; "max" is in shares of the side.
    """
    return of_scaled.distance(g @ of_input, kind)


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()
