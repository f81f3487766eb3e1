"""What a canonicalizer is: it takes features and returns the warp to their canonical form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_core.pointwise import PointwiseWarp
from lse_core.separable import SeparableWarp
from lse_dec.solvers import Solution

__all__ = ["Canonicalization", "Canonicalizer", "Warp", "channels_first", "places"]

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
    """Return `features` as (B, C, H, W); raise a ShapeError if they are not a map of `channels` channels."""
    axis = 3 if channels_last else 1
    if features.ndim != 4 or features.shape[axis] != channels:
        raise ShapeError(
            f"{name} made for {channels} channels got features of shape {tuple(features.shape)} "
            f"({'channels last' if channels_last else 'channels first'})"
        )
    return features.permute(0, 3, 1, 2) if channels_last else features


def places(warp: Warp, u: Tensor, by_axis: bool = True) -> Tensor:
    """Where a warp sends points `u` (n,) of both axes, (B, 2, n), axis x first.

    Of a warp that is not separable, or if `by_axis` is off, where it sends the points' lattice, (B, 2, n n).
    """
    if by_axis and isinstance(warp, SeparableWarp):
        return torch.stack([warp.x(u), warp.y(u)], dim=1)
    return warp(torch.stack(torch.meshgrid(u, u, indexing="xy"), dim=-1).view(-1, 2)).transpose(1, 2)
