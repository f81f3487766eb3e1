"""Warps that are evaluated point by point: coupled grids, their inverses and their products."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lse_core.batched import Batched
from lse_core.errors import ShapeError
from lse_core.log_slopes import pixel_centres
from lse_core.separable import SeparableWarp

__all__ = ["ComposedWarp", "PointwiseWarp"]


class PointwiseWarp(Batched, ABC):
    """A batch of warps of the unit square that need not be separable.

    `w(p)` maps points, `w @ v` composes exactly ((w @ v)(p) = w(v(p)), with a SeparableWarp on either
    side too), `~w` inverts. Coordinates as for `SeparableWarp`.
    """

    __slots__ = ()

    @abstractmethod
    def _evaluate(self, points: Tensor) -> Tensor:
        """l at points (B or 1, n, 2), (B, n, 2)."""

    @abstractmethod
    def __invert__(self) -> PointwiseWarp:
        """The inverse warp, or the best that is known of it."""

    def _points(self, points: Tensor) -> Tensor:
        if points.shape[-1] != 2 or points.ndim not in (2, 3):
            raise ShapeError(f"points must be (n, 2) or (batch, n, 2) in xy order; got {tuple(points.shape)}")
        points = points if points.ndim == 3 else points.unsqueeze(0)
        if points.shape[0] != self.batch and 1 not in (points.shape[0], self.batch):
            raise ShapeError(f"points of a batch of {points.shape[0]} do not fit {self.batch} warps")
        return points.expand(max(points.shape[0], self.batch), -1, -1)

    def __call__(self, points: Tensor) -> Tensor:
        """l(p) for points (B, n, 2) or (n, 2), xy order, within [0, 1]; returns (B, n, 2)."""
        return self._evaluate(self._points(points))

    def lattice(self, h: int, w: int) -> Tensor:
        """l at the pixel centres of an h x w picture, (B, h, w, 2)."""
        x, y = pixel_centres(w, self), pixel_centres(h, self)
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 2)
        return self(points).view(-1, h, w, 2)

    def __matmul__(self, other: object) -> ComposedWarp:
        if not isinstance(other, (PointwiseWarp, SeparableWarp)):
            return NotImplemented
        return ComposedWarp(self, other)

    def __rmatmul__(self, other: object) -> ComposedWarp:
        if not isinstance(other, SeparableWarp):
            return NotImplemented
        return ComposedWarp(other, self)


class ComposedWarp(PointwiseWarp):
    """outer(inner(p)), exactly; made by `@` where one side is not separable.

    Args:
        outer: the warp applied last.
        inner: the warp applied first; batches equal, or one of them 1.
    """

    __slots__ = ("inner", "outer")
    PARTS = ("outer", "inner")

    def __init__(self, outer: SeparableWarp | PointwiseWarp, inner: SeparableWarp | PointwiseWarp) -> None:
        batch = max(outer.batch, inner.batch)
        self.outer, self.inner = outer.broadcast(batch), inner.broadcast(batch)

    def _evaluate(self, points: Tensor) -> Tensor:
        return self.outer(self.inner(points))

    def __invert__(self) -> ComposedWarp:
        """The inverses in reverse order, as good as theirs are."""
        return type(self)(~self.inner, ~self.outer)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.outer!r} after {self.inner!r})"
