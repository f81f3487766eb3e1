"""Triangular warps: one axis moves on its own, the other one differently in every column (or row).

l(x, y) = (l_X(x), l_Y(y; x)), increasing in y for every x. As functions these warps are an exact group that
holds the separable ones. Any number of objects that have columns of their own can be resized in x and in y,
each by its own factor, which no separable warp can do. (The paper's Lemma 2 says nothing of them: their
Jacobians are not symmetric.) A finite number of nodes is not closed under composition. So products and
inverses are kept, exactly, as what they are; `resample` reads them off at nodes again, with a stated error.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from lse_core.batched import saved_by
from lse_core.errors import DTypeError, ShapeError, unknown_name
from lse_core.log_slopes import knots_and_values, pixel_centres, ramp, uniform_knots, with_ends
from lse_core.monotone import MonotoneMap, check_maps
from lse_core.pointwise import ComposedWarp, PointwiseWarp
from lse_core.separable import SeparableWarp

__all__ = ["ORDERS", "Triangular", "TriangularInverse", "TriangularProduct", "TriangularWarp"]

ORDERS = ("xy", "yx")
"""Which axis is first, that is, moves on its own: x (columns stay columns), or y (rows stay rows)."""


class Triangular(PointwiseWarp):
    """A batch of triangular warps: nodes (`TriangularWarp`), inverses and products of them.

    `w @ v` of warps of one order, or with a `SeparableWarp`, is triangular and exact; `~w` is exact too. The
    product of both orders is exact but no longer triangular (`lse_core.pointwise.ComposedWarp`).
    """

    __slots__ = ()

    order: str

    @abstractmethod
    def _first(self, u: Tensor) -> Tensor:
        """Where the first axis sends `u`, (B, n)."""

    @abstractmethod
    def _second(self, v: Tensor, u: Tensor) -> Tensor:
        """Where the second axis sends `v` (B or 1, n or 1, m) in the columns at `u` (B, n): (B, n, m)."""

    @property
    @abstractmethod
    def slope_bounds(self) -> Tensor:
        """Least and greatest slope along each axis, (B, 2, 2), axis x first; exact but for products."""

    def _evaluate(self, points: Tensor) -> Tensor:
        a, b = (0, 1) if self.order == "xy" else (1, 0)
        u = points[..., a]
        moved = [self._first(u), self._second(points[..., b, None], u).squeeze(-1)]
        return torch.stack([moved[a], moved[b]], dim=-1)

    def positions(self, h: int, w: int) -> tuple[Tensor, Tensor]:
        """l at the pixel centres of an h x w picture, within [0, 1]: first axis (B, n), second (B, n, m).

        n and m are w and h for the order "xy", h and w for "yx".
        """
        n, m = (w, h) if self.order == "xy" else (h, w)
        u = pixel_centres(n, self).expand(self.batch, n)
        return self._first(u), self._second(pixel_centres(m, self).view(1, 1, m), u)

    def lattice(self, h: int, w: int) -> Tensor:
        """l at the pixel centres of an h x w picture, (B, h, w, 2)."""
        u, v = self.positions(h, w)
        if self.order == "xy":
            v = v.transpose(1, 2)
            return torch.stack([u.unsqueeze(1).expand_as(v), v], dim=-1)
        return torch.stack([v, u.unsqueeze(2).expand_as(v)], dim=-1)

    def __matmul__(self, other: object) -> ComposedWarp:
        if isinstance(other, SeparableWarp):
            other = TriangularWarp.from_separable(other, self.order)
        if isinstance(other, Triangular) and other.order == self.order:
            return TriangularProduct(self, other)
        return super().__matmul__(other)

    def __rmatmul__(self, other: object) -> ComposedWarp:
        if not isinstance(other, SeparableWarp):
            return NotImplemented
        return TriangularWarp.from_separable(other, self.order) @ self

    def resample(self, columns: int, segments: int) -> TriangularWarp:
        """The warp read off at `columns` equal nodes of the first axis and `segments` + 1 of the second.

        It is exact at the nodes. Elsewhere the first axis is off by at most (s - t) / (4 segments), where s
        and t are its greatest and least slope, and the second axis by at most
        (s - t) / (4 segments) + (c - d) / (4 (columns - 1)), with s and t its own extreme slopes, c and d
        the greatest and least derivative of l_Y(y; x) by x. docs/results/triangular.md has measured errors.

        Raises:
            ShapeError: fewer than two columns or one segment.
        """
        if columns < 2 or segments < 1:
            raise ShapeError(f"resample needs at least 2 columns and 1 segment; got {columns} and {segments}")
        nodes, knots = (
            uniform_knots(n, device=self.device, dtype=self.dtype).expand(self.batch, -1)
            for n in (columns - 1, segments)
        )
        first = MonotoneMap(knots, with_ends(self._first(knots)), check=False)
        return _rebuild(first, nodes, knots, with_ends(self._second(knots[:, None], nodes)), self.order)


class TriangularWarp(Triangular):
    """A batch of triangular warps on nodes, l(x, y) = (l_X(x), l_Y(y; x)) for the order "xy".

    l_X is a `MonotoneMap`. l_Y(.; x) is increasing and piecewise linear on columns at nodes in x, and linear
    between two nodes, so it is increasing everywhere. No such warp folds. For the order "yx" the axes change
    places: l(x, y) = (l_X(x; y), l_Y(y)). Rows of objects want "xy", columns of objects "yx". A mixture of
    both orders is in neither group, so the order is a choice and cannot be learned.

    Coordinates are in xy order, 0 and 1 at the centres of the first and last pixel (align_corners=True).

    Args:
        first: map of the first axis, batch B.
        nodes: (B, M) places of the columns on the first axis, increasing from 0 to 1; floating.
        knots: (B, K) knots of all columns, increasing from 0 to 1.
        values: (B, M, K) where each column sends the knots, increasing from 0 to 1 along the last axis.
        order: "xy" or "yx".
        check: verify all this (reads flags back from the device; skipped while tracing).

    Raises:
        ShapeError, DTypeError: the tensors do not fit each other.
        WarpError: something does not increase, or does not run from 0 to 1.
        UnknownNameError: no such order.
    """

    __slots__ = ("first", "knots", "nodes", "order", "values")
    PARTS = ("first", "nodes", "knots", "values")
    SETTINGS = ("order",)

    def __init__(
        self,
        first: MonotoneMap,
        nodes: Tensor,
        knots: Tensor,
        values: Tensor,
        order: str = "xy",
        *,
        check: bool = True,
    ) -> None:
        if order not in ORDERS:
            raise unknown_name("order", order, ORDERS)
        self.first, self.nodes, self.knots, self.values, self.order = first, nodes, knots, values, order
        if check:
            self._check()

    def _check(self) -> None:
        x, y, v = self.nodes, self.knots, self.values
        b = self.first.batch
        if v.ndim != 3 or x.shape != v.shape[:2] or y.shape != (v.shape[0], v.shape[2]) or v.shape[0] != b:
            raise ShapeError(
                f"a triangular warp needs nodes (batch, M), knots (batch, K) and values (batch, M, K) for a "
                f"batch of {b}; got {tuple(x.shape)}, {tuple(y.shape)} and {tuple(v.shape)}"
            )
        if len({(t.dtype, t.device) for t in (x, y, v, self.first.knots)}) > 1:
            raise DTypeError(
                "nodes, knots, values and the first map must share one floating dtype and device"
            )
        check_maps("the nodes of a triangular warp are no monotone map", x, x)
        columns = y.repeat_interleave(x.shape[1], 0), v.flatten(0, 1)
        check_maps("the columns of a triangular warp are no monotone maps", *columns)

    @classmethod
    def identity(
        cls,
        batch: int = 1,
        columns: int = 2,
        segments: int = 1,
        order: str = "xy",
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> TriangularWarp:
        """The neutral element, `batch` copies of it, on equal nodes and segments."""
        w = torch.zeros(batch, 1 + columns, segments, device=device, dtype=dtype)
        return cls.from_log_slopes(w, order)

    @classmethod
    def from_log_slopes(cls, w: Tensor, order: str = "xy") -> TriangularWarp:
        """Warp from log-slopes (B, 1 + M, N): those of the first axis, then of columns at M equal nodes.

        See `MonotoneMap.from_log_slopes`.
        """
        if w.ndim != 3 or w.shape[1] < 3:
            raise ShapeError(
                "log-slopes of a triangular warp must be (batch, 1 + columns, segments), with 2 columns or "
                f"more; got {tuple(w.shape)}"
            )
        knots, values = knots_and_values(w)
        nodes = uniform_knots(w.shape[1] - 2, device=w.device, dtype=w.dtype).expand(w.shape[0], -1)
        first = MonotoneMap(knots[:, 0], values[:, 0], check=False)
        return cls(first, nodes, knots[:, 1], values[:, 1:], order, check=False)

    @classmethod
    def from_separable(cls, warp: SeparableWarp, order: str = "xy") -> TriangularWarp:
        """The same warp, exactly, as a triangular one with two equal columns."""
        first, second = (warp.x, warp.y) if order == "xy" else (warp.y, warp.x)
        nodes = uniform_knots(1, device=warp.device, dtype=warp.dtype).expand(warp.batch, 2)
        values = second.values.unsqueeze(1).expand(-1, 2, -1)
        return cls(first, nodes, second.knots, values, order, check=False)

    @classmethod
    def random(
        cls,
        batch: int = 1,
        segments: int = 4,
        ratio: float = 2.0,
        *,
        columns: int = 4,
        order: str = "xy",
        distribution: str = "log_uniform",
        strength: float = 1.0,
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> TriangularWarp:
        """Random warps, all columns independent; slopes along both axes within [1/ratio, ratio].

        See `lse_core.random.random_log_slopes` for the arguments and errors; `columns` is at least 2.
        """
        from lse_core.random import random_log_slopes

        if columns < 2:
            raise ShapeError(f"a triangular warp needs at least 2 columns; got {columns}")
        pairs = columns // 2 + 1
        how: dict[str, Any] = {"distribution": distribution, "strength": strength, "generator": generator}
        w = random_log_slopes(batch * pairs, segments, ratio, device=device, dtype=dtype, **how)
        return cls.from_log_slopes(w.view(batch, 2 * pairs, segments)[:, : 1 + columns], order)

    def _first(self, u: Tensor) -> Tensor:
        return self.first(u)

    def _columns_at(self, u: Tensor) -> Tensor:
        """Values of the columns at places `u` (B, n) of the first axis, (B, n, K)."""
        x, v = self.nodes.unsqueeze(1), self.values
        share = ramp((u.unsqueeze(-1) - x[..., :-1]) / x.diff(dim=-1))
        # a sum and no matmul: autocast, or TF32, would lower the precision of coordinates
        return v[:, :1] + (share.unsqueeze(-1) * v.diff(dim=1).unsqueeze(1)).sum(2)

    def _second(self, v: Tensor, u: Tensor) -> Tensor:
        column, y = self._columns_at(u), self.knots[:, None, None]
        share = ramp((v.unsqueeze(-1) - y[..., :-1]) / y.diff(dim=-1))
        return column[..., :1] + (share * column.diff(dim=-1).unsqueeze(2)).sum(-1)

    @property
    def columns(self) -> MonotoneMap:
        """The maps of the columns at the nodes, a batch of B * M."""
        knots = self.knots.unsqueeze(1).expand_as(self.values)
        return MonotoneMap(knots.flatten(0, 1), self.values.flatten(0, 1), check=False)

    @property
    def slope_bounds(self) -> Tensor:
        """Least and greatest slope along each axis, (B, 2, 2), axis x first.

        Exact, because a slope between two nodes is a mean of the slopes at them. Their product bounds the
        Jacobian determinant, so it is positive everywhere.
        """
        slopes = [self.first.slopes, (self.values.diff(dim=-1) / self.knots[:, None].diff(dim=-1)).flatten(1)]
        slopes = slopes if self.order == "xy" else slopes[::-1]
        return torch.stack([torch.stack([s.amin(1), s.amax(1)], dim=-1) for s in slopes], dim=1)

    def __invert__(self) -> TriangularInverse:
        """The inverse, exactly."""
        return TriangularInverse(self)

    def separable(self) -> SeparableWarp:
        """The nearest `SeparableWarp` in mean squared distance between where points go.

        The first axis stays; the second one becomes its mean over the columns.
        """
        width = self.nodes.diff(dim=1).unsqueeze(-1)
        mean = (0.5 * width * (self.values[:, 1:] + self.values[:, :-1])).sum(1)
        second = MonotoneMap(self.knots, with_ends(mean), check=False)
        return SeparableWarp(*((self.first, second) if self.order == "xy" else (second, self.first)))

    def geodesic(self, t: float) -> TriangularWarp:
        """The warp a share `t` in [0, 1] of the way from the identity, map by map: `MonotoneMap.geodesic`."""
        values = self.columns.geodesic(t).values.view(self.values.shape)
        return _rebuild(self.first.geodesic(t), self.nodes, self.knots, values, self.order)

    def __repr__(self) -> str:
        if torch.compiler.is_compiling() or not isinstance(self.values, Tensor):
            return "TriangularWarp(...)"
        _, m, k = self.values.shape
        shape = f"batch={self.batch}, {m} columns of {k - 1} segments"
        return f"TriangularWarp({self.order}, {shape}, {self.dtype}, {self.device})"


class TriangularInverse(Triangular):
    """The exact inverse of a `TriangularWarp`: the first axis, then each column for the place found there.

    It is not a warp on nodes: between two of them its columns are inverses of means, not means of inverses.

    Args:
        warp: the warp to invert.
    """

    __slots__ = ("order", "warp")
    PARTS = ("warp",)

    def __init__(self, warp: TriangularWarp) -> None:
        self.warp, self.order = warp, warp.order

    def _first(self, u: Tensor) -> Tensor:
        return (~self.warp.first)(u)

    def _second(self, v: Tensor, u: Tensor) -> Tensor:
        column = self.warp._columns_at(self._first(u))
        b, n, _ = column.shape
        y = self.warp.knots.unsqueeze(1).expand_as(column)
        # the same points in all columns need no copy for each
        points = v[0] if v.shape[:2] == (1, 1) else v.expand(b, n, -1).flatten(0, 1)
        return MonotoneMap(column.flatten(0, 1), y.flatten(0, 1), check=False)(points).view(b, n, -1)

    @property
    def slope_bounds(self) -> Tensor:
        """Least and greatest slope along each axis, (B, 2, 2), axis x first; exact."""
        return 1.0 / self.warp.slope_bounds.flip(-1)

    def __invert__(self) -> TriangularWarp:
        """The warp itself."""
        return self.warp

    def __repr__(self) -> str:
        return f"inverse of {self.warp!r}"


class TriangularProduct(ComposedWarp, Triangular):
    """outer(inner(p)) of two triangular warps of one order, exactly; made by `@`."""

    __slots__ = ("order",)

    outer: Triangular
    inner: Triangular

    def __init__(self, outer: Triangular, inner: Triangular) -> None:
        super().__init__(outer, inner)
        self.order = inner.order

    def _first(self, u: Tensor) -> Tensor:
        return self.outer._first(self.inner._first(u))

    def _second(self, v: Tensor, u: Tensor) -> Tensor:
        return self.outer._second(self.inner._second(v, u), self.inner._first(u))

    @property
    def slope_bounds(self) -> Tensor:
        """Bounds on the slopes along each axis, (B, 2, 2), axis x first: products of both warps' bounds."""
        return self.outer.slope_bounds * self.inner.slope_bounds


def _rebuild(first: MonotoneMap, nodes: Tensor, knots: Tensor, values: Tensor, order: str) -> TriangularWarp:
    return TriangularWarp(first, nodes, knots, values, order, check=False)


saved_by(TriangularWarp, _rebuild)
