"""What a canonicalizer is: features in, the warp to their canonical form out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lse_core.errors import ShapeError
from lse_core.pointwise import PointwiseWarp
from lse_core.separable import SeparableWarp
from lse_dec.solvers import Solution

__all__ = ["Canonicalization", "Canonicalizer", "Warp", "channels_first"]

Warp = SeparableWarp | PointwiseWarp
"""A batch of warps of any family."""


@dataclass(frozen=True)
class Canonicalization:
    """A canonicalizer's answer; `answer[:n]` is that for the first n samples.

    Attributes:
        warp: h(F), batch B; `lse_core.unscale(F, warp)` is the canonical form (Eq. 6).
        solution: the fixed-point solve behind it, or None for canonicalizers without one.
    """

    warp: Warp
    solution: Solution | None = None

    def __getitem__(self, samples: slice) -> Canonicalization:
        solution = None if self.solution is None else self.solution[samples]
        return Canonicalization(self.warp[samples], solution)


class Canonicalizer(Protocol):
    """h of Eq. 5. Implementations are `torch.nn.Module`s."""

    def __call__(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        """Find the warp for a map (B, C, H, W), or (B, H, W, C) if `channels_last`."""
        ...


def channels_first(features: Tensor, channels: int, channels_last: bool, name: str) -> Tensor:
    """`features` as (B, C, H, W); ShapeError if they are no map of `channels` channels."""
    axis = 3 if channels_last else 1
    if features.ndim != 4 or features.shape[axis] != channels:
        raise ShapeError(
            f"{name} made for {channels} channels got features of shape {tuple(features.shape)} "
            f"({'channels last' if channels_last else 'channels first'})"
        )
    return features.permute(0, 3, 1, 2) if channels_last else features
