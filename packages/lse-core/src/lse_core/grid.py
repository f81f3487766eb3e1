"""The paper's coupled grids (A26 to A29): warps whose two axes depend on each other, and their inverses.

A coupled grid is a relaxation, not a group: monotone along every row and column, it can still fold,
and neither its inverse nor a product is a grid again. So inverses and products here are warps of their
own kind, evaluated point by point. `SeparableWarp` is the exact group; `GridWarp.separable` leads there.

Lemma 2 allows any fixed orthonormal frame in place of the axes. A rotated frame is not offered: a
rotated square is not the square, so such a warp would need a picture beyond its border, and composing
it would no longer be two maps of one variable. Rotate the picture before and after instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lse_core.batched import saved_by
from lse_core.errors import ConvergenceError, ShapeError, WarpError
from lse_core.log_slopes import logits_to_log_slopes, pixel_centres, uniform_knots
from lse_core.monotone import MonotoneMap, check_maps
from lse_core.pointwise import PointwiseWarp
from lse_core.sampling import pixel_weights
from lse_core.separable import SeparableWarp

__all__ = ["GridInverse", "GridWarp"]


class GridWarp(PointwiseWarp):
    """A batch of coupled grid warps l(x, y) = (l_X(x, y), l_Y(x, y)), A26.

    l_X is monotone and piecewise linear in x along every grid row (A27), l_Y in y along every grid
    column (A28); between rows and columns both are interpolated linearly (A29, whose printed form lacks
    the distance to the row above and the distance between the rows). On each cell the warp is bilinear.

    `~w` inverts each axis on its own, as the paper does: quick, always possible, and off by pixels (see
    docs/results/round_trips.md); `w.inverse()` refines it to the true inverse where there is one.

    Args:
        nodes: (B, rows, cols, 2), l at the grid points (j/(cols-1), i/(rows-1)) in xy order; floating.
        check: verify shape and monotonicity (reads one flag back from the device; skipped in tracing).

    Raises:
        ShapeError, DTypeError: not a grid of at least 2 x 2 floating points.
        WarpError: not increasing along a row or column, or not from 0 to 1.
    """

    __slots__ = ("nodes",)
    PARTS = ("nodes",)

    nodes: Tensor

    def __init__(self, nodes: Tensor, *, check: bool = True) -> None:
        self.nodes = nodes
        if check:
            self._check()

    def _check(self) -> None:
        n = self.nodes
        if n.ndim != 4 or n.shape[3] != 2 or min(n.shape[1:3]) < 2:
            raise ShapeError(f"grid nodes must be (batch, rows >= 2, cols >= 2, 2); got {tuple(n.shape)}")
        # each row and each column is a monotone map: those have the checks
        for name, maps in (("row", n[..., 0].flatten(0, 1)), ("column", n[..., 1].mT.flatten(0, 1))):
            knots = uniform_knots(maps.shape[1] - 1, device=n.device, dtype=n.dtype).expand_as(maps)
            check_maps(f"a grid {name} is not a monotone map", knots, maps)

    # construction -----------------------------------------------------------------------------

    @classmethod
    def identity(
        cls,
        batch: int = 1,
        rows: int = 2,
        cols: int = 2,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> GridWarp:
        """The identity on rows x cols grid points."""
        x, y = (uniform_knots(n - 1, device=device, dtype=dtype) for n in (cols, rows))
        nodes = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return cls(nodes.expand(batch, rows, cols, 2), check=False)

    @classmethod
    def from_log_slopes(cls, w_x: Tensor, w_y: Tensor) -> GridWarp:
        """Grid whose rows and columns are `MonotoneMap.from_log_slopes`.

        Args:
            w_x: (B, rows, cols - 1), log-slopes of l_X along every row.
            w_y: (B, cols, rows - 1), log-slopes of l_Y along every column.
        """
        if w_x.ndim != 3 or w_y.ndim != 3 or w_x.shape != (w_y.shape[0], w_y.shape[2] + 1, w_y.shape[1] - 1):
            raise ShapeError(
                f"log-slopes of a grid must be (batch, rows, cols - 1) and (batch, cols, rows - 1); "
                f"got {tuple(w_x.shape)} and {tuple(w_y.shape)}"
            )
        x, y = (
            MonotoneMap.from_log_slopes(w.flatten(0, 1)).values.unflatten(0, w.shape[:2]) for w in (w_x, w_y)
        )
        return cls(torch.stack([x, y.mT], dim=-1), check=False)

    @classmethod
    def from_logits(cls, z_x: Tensor, z_y: Tensor, ratio: float = 2.0) -> GridWarp:
        """Grid whose slopes along rows and columns lie within [1/ratio, ratio]; zero is the identity.

        Shapes as in `from_log_slopes`. The bound does not keep the grid from folding.
        """
        return cls.from_log_slopes(*(logits_to_log_slopes(z, ratio) for z in (z_x, z_y)))

    @classmethod
    def random(
        cls,
        batch: int = 1,
        resolution: int = 4,
        strength: float = 0.25,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> GridWarp:
        """Random grids as the authors' code draws them: `resolution` points a side, rows independent.

        See `lse_core.random.random_log_slopes` with the distribution "authors".
        """
        from lse_core.random import authors_log_slopes

        w = authors_log_slopes(
            (batch, 2, resolution, resolution - 1), strength, generator=generator, device=device, dtype=dtype
        )
        return cls.from_log_slopes(w[:, 0], w[:, 1])

    # evaluation -------------------------------------------------------------------------------

    def _weights(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Bilinear weights of the columns (B, n, cols) and of the rows (B, n, rows)."""
        rows, cols = self.nodes.shape[1:3]
        p = points.clamp(0.0, 1.0)
        return pixel_weights(p[..., 0] * (cols - 1), cols), pixel_weights(p[..., 1] * (rows - 1), rows)

    def _evaluate(self, points: Tensor) -> Tensor:
        w_x, w_y = self._weights(points)
        b, rows, cols = self.nodes.shape[:3]
        columns = (w_y @ self.nodes.reshape(b, rows, cols * 2)).unflatten(-1, (cols, 2))
        return (columns * w_x.unsqueeze(-1)).sum(-2)

    def lattice(self, h: int, w: int) -> Tensor:
        """l at the pixel centres of an h x w picture, (B, h, w, 2): two products, as grids are separable."""
        b, rows, cols = self.nodes.shape[:3]
        w_x, w_y = (pixel_weights(pixel_centres(n, self) * (m - 1), m) for n, m in ((w, cols), (h, rows)))
        up = (w_y @ self.nodes.reshape(b, rows, cols * 2)).view(b, h, cols, 2)
        return w_x @ up

    def jacobian(self, points: Tensor) -> Tensor:
        """dl/dp at points (n, 2) or (B, n, 2): (B, n, 2, 2), [..., i, j] = d l_i / d p_j.

        On an edge between cells it is that of the cell to the right or below.
        """
        points = self._points(points)
        rows, cols = self.nodes.shape[1:3]
        p = points.clamp(0.0, 1.0)
        j = (p[..., 0] * (cols - 1)).floor().clamp(0, cols - 2)
        i = (p[..., 1] * (rows - 1)).floor().clamp(0, rows - 2)
        s, t = (p[..., 0] * (cols - 1) - j).unsqueeze(-1), (p[..., 1] * (rows - 1) - i).unsqueeze(-1)
        flat = self.nodes.flatten(1, 2).expand(p.shape[0], -1, -1)
        first = (i * cols + j).long()
        a, b, c, d = (
            flat.gather(1, (first + o).unsqueeze(-1).expand(-1, -1, 2)) for o in (0, 1, cols, cols + 1)
        )
        d_x = ((b - a) * (1 - t) + (d - c) * t) * (cols - 1)
        d_y = ((c - a) * (1 - s) + (d - b) * s) * (rows - 1)
        return torch.stack([d_x, d_y], dim=-1)

    @property
    def min_jacobian(self) -> Tensor:
        """Smallest Jacobian determinant over the whole square, (B,), exactly; at most 0 where it folds.

        On a bilinear cell the determinant is linear, so the smallest of its corners is the smallest.
        """
        n = self.nodes
        rows, cols = n.shape[1:3]
        along_x, along_y = n.diff(dim=2) * (cols - 1), n.diff(dim=1) * (rows - 1)
        corners = []
        for top in (along_x[:, :-1], along_x[:, 1:]):
            for left in (along_y[:, :, :-1], along_y[:, :, 1:]):
                corners.append(top[..., 0] * left[..., 1] - top[..., 1] * left[..., 0])
        return torch.stack(corners).flatten(2).amin(dim=(0, 2))

    @property
    def folds(self) -> Tensor:
        """Whether each warp folds, so that it has no inverse; bool (B,)."""
        return self.min_jacobian <= 0

    # inverses and relatives -------------------------------------------------------------------

    def __invert__(self) -> GridInverse:
        """The paper's inverse, each axis on its own; approximate, see `inverse` for the true one."""
        return GridInverse(self)

    def inverse(self, tolerance: float = 0.01, size: int = 224, steps: int = 20) -> GridInverse:
        """The true inverse, by Newton's method from the paper's.

        Args:
            tolerance: how far l(result) may be from the point asked for, in pixels.
            size: pixels a side that the tolerance is in.
            steps: Newton steps at most; points that arrived stay.

        Raises:
            WarpError: a warp of the batch folds and has no inverse.
        """
        folds = self.folds
        if bool(folds.any()):
            where = int(folds.nonzero()[0])
            raise WarpError(
                f"warp {where} of {self.batch} folds (smallest Jacobian determinant "
                f"{float(self.min_jacobian[where]):.3g}), so it has no inverse; use ~warp for the paper's "
                f"approximation or warp.separable() for the nearest invertible warp"
            )
        return GridInverse(self, tolerance / max(size - 1, 1), steps)

    def separable(self) -> SeparableWarp:
        """The nearest SeparableWarp in mean squared distance between where points go.

        That is each axis averaged over the other: of all a(x), the one nearest to l_X(x, y) for every
        y. Averages of monotone maps are monotone, and on a bilinear grid the trapezoid rule is exact.
        """
        x = self._average(self.nodes[..., 0])
        y = self._average(self.nodes[..., 1].mT)
        return SeparableWarp(x, y)

    @staticmethod
    def _average(values: Tensor) -> MonotoneMap:
        mean = (0.5 * (values[:, 1:] + values[:, :-1])).mean(1)
        knots = uniform_knots(values.shape[2] - 1, device=values.device, dtype=values.dtype)
        return MonotoneMap(knots.expand_as(mean), mean, check=False)

    def __repr__(self) -> str:
        if torch.compiler.is_compiling() or not isinstance(self.nodes, Tensor):
            return "GridWarp(...)"
        rows, cols = self.nodes.shape[1:3]
        return (
            f"GridWarp(batch={self.batch}, {rows} x {cols} nodes, folding: {int(self.folds.sum())} of "
            f"{self.batch}, {self.dtype}, {self.device})"
        )


class GridInverse(PointwiseWarp):
    """The inverse of a `GridWarp`, each axis on its own or refined; made by `~w` and `w.inverse()`.

    Args:
        warp: the grid to invert.
        tolerance: None for the paper's inverse; else refine until l(result) is this near, in shares
            of the side.
        steps: Newton steps at most.
    """

    __slots__ = ("steps", "tolerance", "warp")
    PARTS = ("warp",)
    SETTINGS = ("tolerance", "steps")

    def __init__(self, warp: GridWarp, tolerance: float | None = None, steps: int = 20) -> None:
        self.warp, self.tolerance, self.steps = warp, tolerance, steps

    def _per_axis(self, points: Tensor) -> Tensor:
        """Invert l_X(., y) on the point's own row and l_Y(x, .) on its own column."""
        w_x, w_y = self.warp._weights(points)
        nodes = self.warp.nodes
        rows = w_y @ nodes[..., 0]  # (B, n, cols): l_X at this y
        columns = w_x @ nodes[..., 1].mT  # (B, n, rows): l_Y at this x
        return torch.stack([_solve(rows, points[..., 0]), _solve(columns, points[..., 1])], dim=-1)

    def _evaluate(self, points: Tensor) -> Tensor:
        if self.tolerance is None:
            return self._per_axis(points)
        with torch.no_grad():
            q = self._newton(points)
        # one step more, with gradient: to the implicit function theorem's first order it is the inverse
        q = q.detach()
        jacobian = self.warp.jacobian(q).detach()
        return q - _solve_2x2(jacobian, self.warp(q) - points)

    def _newton(self, points: Tensor) -> Tensor:
        tolerance = self.tolerance or 0.0
        q = self._per_axis(points).clamp(0.0, 1.0)
        miss = self.warp(q) - points
        length = torch.ones_like(points[..., :1])
        for _ in range(self.steps):
            if bool((miss.norm(dim=-1) <= tolerance).all()):
                return q
            step = _solve_2x2(self.warp.jacobian(q), miss)
            trial = (q - length * step).clamp(0.0, 1.0)
            new = self.warp(trial) - points
            # a step across an edge between cells can overshoot: keep what is nearer, else go shorter
            better = new.norm(dim=-1, keepdim=True) < miss.norm(dim=-1, keepdim=True)
            q, miss = torch.where(better, trial, q), torch.where(better, new, miss)
            length = torch.where(better, torch.ones_like(length), 0.5 * length)
        # Newton can stall at an edge between cells; a cell on its own is smooth, so try them all
        stuck = miss.norm(dim=-1) > tolerance
        which = stuck.nonzero()[:, 0]
        q[stuck] = _by_cells(self.warp.nodes.expand(q.shape[0], -1, -1, -1)[which], points[stuck])
        worst = float((self.warp(q) - points).norm(dim=-1).max())
        if not worst <= tolerance:
            raise ConvergenceError(
                f"the inverse of a grid is still {worst:.2e} of the side off after {self.steps} Newton "
                f"steps and a search of every cell; allow a larger tolerance or use float64"
            )
        return q

    def __invert__(self) -> GridWarp:
        """The grid itself."""
        return self.warp

    def __repr__(self) -> str:
        how = "axis by axis" if self.tolerance is None else f"to {self.tolerance:.2g} of the side"
        return f"inverse {how} of {self.warp!r}"


def _solve(values: Tensor, target: Tensor) -> Tensor:
    """u with m(u) = target for maps of `values` (B, n, K) on equal segments; (B, n).

    The inverse map has `values` as knots: the same sum of ramps as `MonotoneMap`, one map a point.
    """
    knots = uniform_knots(values.shape[-1] - 1, device=values.device, dtype=values.dtype)
    shape = values.shape[:2]
    inverse = MonotoneMap(values.flatten(0, 1), knots.expand(values[..., 0].numel(), -1), check=False)
    return inverse(target.expand(shape).reshape(-1, 1)).view(shape)


def _by_cells(nodes: Tensor, target: Tensor) -> Tensor:
    """Where the grids (n, rows, cols, 2) reach `target` (n, 2): Newton in every cell, the best one taken."""
    rows, cols = nodes.shape[1:3]
    a, b = nodes[:, :-1, :-1].flatten(1, 2), nodes[:, :-1, 1:].flatten(1, 2)
    c, d = nodes[:, 1:, :-1].flatten(1, 2), nodes[:, 1:, 1:].flatten(1, 2)
    e = a - b - c + d
    st = torch.full_like(a, 0.5)
    for _ in range(20):  # bilinear on a convex cell: converges from its middle
        s, t = st[..., :1], st[..., 1:]
        miss = a + (b - a) * s + (c - a) * t + e * s * t - target.unsqueeze(1)
        st = (st - _solve_2x2(torch.stack([b - a + e * t, c - a + e * s], dim=-1), miss)).clamp(0.0, 1.0)
    s, t = st[..., :1], st[..., 1:]
    miss = (a + (b - a) * s + (c - a) * t + e * s * t - target.unsqueeze(1)).norm(dim=-1)
    best = miss.argmin(dim=1)
    st = st[torch.arange(st.shape[0], device=st.device), best]
    i, j = best.div(cols - 1, rounding_mode="floor"), best % (cols - 1)
    return torch.stack([(j + st[:, 0]) / (cols - 1), (i + st[:, 1]) / (rows - 1)], dim=-1)


def _solve_2x2(a: Tensor, b: Tensor) -> Tensor:
    """a^-1 b for matrices (..., 2, 2) and vectors (..., 2); 0 where a is singular."""
    det = a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] * a[..., 1, 0]
    safe = torch.where(det.abs() > torch.finfo(det.dtype).tiny, det, torch.full_like(det, torch.inf))
    x = a[..., 1, 1] * b[..., 0] - a[..., 0, 1] * b[..., 1]
    y = a[..., 0, 0] * b[..., 1] - a[..., 1, 0] * b[..., 0]
    return torch.stack([x, y], dim=-1) / safe.unsqueeze(-1)


def _rebuild(nodes: Tensor) -> GridWarp:
    return GridWarp(nodes, check=False)


saved_by(GridWarp, _rebuild)
