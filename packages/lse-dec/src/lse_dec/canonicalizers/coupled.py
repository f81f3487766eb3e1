"""The families of coupled grids (A26 to A29) and of triangular warps, and the network for their nodes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lse_core.errors import WarpError, unknown_name
from lse_core.grid import GridInverse, GridWarp
from lse_core.triangular import ORDERS, TriangularWarp
from lse_dec.canonicalizers.families import WarpFamily
from lse_dec.canonicalizers.network import UpdateNetwork, segment_weights

__all__ = ["CoupledGrid", "GridNetwork", "RefinedGridWarp", "TriangularFamily", "node_weights"]


class CoupledGrid(WarpFamily):
    """Grids of (N + 1)^2 nodes: states (2, N + 1, N), along rows of l_X, then along columns of l_Y.

    Products of grids are no grids, so rules that compose warps do not fit.

    Args:
        inverse: what puts a dense output back: "axes", each axis on its own as in the paper, or "refined",
            the true inverse, which is an error where a grid folds and which no graph can hold.

    Raises:
        UnknownNameError: no such inverse.
    """

    def __init__(self, inverse: str = "axes") -> None:
        if inverse not in ("axes", "refined"):
            raise unknown_name("inverse", inverse, ["axes", "refined"])
        self.refined = inverse == "refined"

    def shape(self, segments: int) -> tuple[int, ...]:
        """(2, N + 1, N)."""
        return 2, segments + 1, segments

    def warp(self, w: Tensor) -> GridWarp:
        """The grids of states (B, 2, N + 1, N)."""
        warp = GridWarp.from_log_slopes(w[:, 0], w[:, 1])
        return RefinedGridWarp(warp.nodes, check=False) if self.refined else warp

    def network(self, channels: int, segments: int, widths: tuple[int, ...]) -> UpdateNetwork:
        """One proposal a row and column."""
        return GridNetwork(channels, segments, widths)

    def lifted(self, w: Tensor) -> Tensor:
        """A separable warp is a grid whose rows, and whose columns, are alike."""
        b, _, n = w.shape
        return w.unsqueeze(2).expand(b, 2, n + 1, n)


class TriangularFamily(WarpFamily):
    """Triangular warps on N + 1 equal columns: states (N + 2, N), the first axis and then the columns.

    Products leave the nodes, so rules that compose warps do not fit.

    Args:
        order: which axis moves on its own: "xy" suits objects in a row, "yx" objects in a column.

    Raises:
        UnknownNameError: no such order.
    """

    def __init__(self, order: str = "xy") -> None:
        if order not in ORDERS:
            raise unknown_name("order", order, ORDERS)
        self.order, self.first = order, ORDERS.index(order)

    def shape(self, segments: int) -> tuple[int, ...]:
        """(N + 2, N)."""
        return segments + 2, segments

    def warp(self, w: Tensor) -> TriangularWarp:
        """The warps of states (B, N + 2, N)."""
        return TriangularWarp.from_log_slopes(w, self.order)

    def network(self, channels: int, segments: int, widths: tuple[int, ...]) -> UpdateNetwork:
        """One proposal for the first axis, and one a column."""
        return GridNetwork(channels, segments, widths, self.first)

    def lifted(self, w: Tensor) -> Tensor:
        """A separable warp is a triangular one whose columns are alike."""
        second = w[:, 1 - self.first, None].expand(-1, w.shape[2] + 1, -1)
        return torch.cat([w[:, self.first, None], second], dim=1)


class GridNetwork(UpdateNetwork):
    """The update network with a proposal for every row and column of a grid of (N + 1)^2 nodes.

    As the paper pools to the grid's parameters: the map is averaged onto segments along one axis and onto
    nodes along the other. The head runs over that plane, the same for both axes. Arguments as
    `UpdateNetwork`; the last layer starts at zero, too. `first` is an axis that moves as a whole, as in
    triangular warps, 0 for x and 1 for y: it takes the mean of its proposals.
    """

    def __init__(
        self, channels: int, segments: int, widths: tuple[int, ...] = (32, 64), first: int | None = None
    ) -> None:
        super().__init__(channels, segments, widths)
        self.first = first
        hidden = self.mix.out_channels
        self.mix = nn.Conv2d(self.mix.in_channels, hidden, 3, padding=1)  # type: ignore[assignment]
        self.head = nn.Conv2d(hidden, 1, 3, padding=1)  # type: ignore[assignment]
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def averages(self, x: Tensor) -> tuple[Tensor, ...]:
        """Constant matrices for maps like `x`: (w, 2N + 1) and (h, 2N + 1), segments first, then nodes."""
        n = self.segments
        return tuple(
            torch.cat([segment_weights(size, n, x), node_weights(size, n + 1, x)]).T
            for size in (x.shape[3], x.shape[2])
        )

    def forward(self, x: Tensor, averages: tuple[Tensor, ...] | None = None) -> Tensor:
        """Proposal for a map (B, C, h, w).

        (B, 2, N + 1, N), rows of l_X and then columns of l_Y; with a `first` axis (B, N + 2, N), that axis
        and then the columns (or rows) of the other one.
        """
        along_x, along_y = (a.to(x.dtype) for a in (self.averages(x) if averages is None else averages))
        n, x = self.segments, self.convolutions(x)
        rows = along_y[:, n:].T @ (x @ along_x[:, :n])  # (B, C, N + 1, N)
        columns = along_x[:, n:].T @ (x.mT @ along_y[:, :n])
        hidden = nn.functional.silu(self.mix(torch.cat([rows, columns])))
        both = self.head(hidden)[:, 0].unflatten(0, (2, -1))
        if self.first is None:
            return both.transpose(0, 1)
        return torch.cat([both[self.first].mean(1, keepdim=True), both[1 - self.first]], dim=1)


def node_weights(n: int, nodes: int, like: Tensor) -> Tensor:
    """Averages of n pixels around equally spaced nodes, (nodes, n): tents from node to node, rows sum to 1.

    Where pixels are fewer than nodes, nodes between two pixels mix those.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    at = torch.linspace(0.0, 1.0, nodes, device=like.device, dtype=dtype).unsqueeze(1) * (n - 1)
    reach = max(1.0, (n - 1) / (nodes - 1))
    pixels = torch.arange(n, device=like.device, dtype=dtype)
    tent = (1.0 - (at - pixels).abs() / reach).clamp_min(0.0)
    return (tent / tent.sum(-1, keepdim=True)).to(like.dtype)


class RefinedGridWarp(GridWarp):
    """A `GridWarp` whose `~` is the true inverse (`GridWarp.inverse`), not the paper's approximation."""

    __slots__ = ()

    def __invert__(self) -> GridInverse:
        """The true inverse; WarpError where the warp folds, and in an export, which holds no search."""
        if torch.compiler.is_exporting():
            raise WarpError(
                "the refined inverse of a coupled grid takes a number of steps that depends on the data, and "
                "cannot be exported; export with inverse='axes' or warp='separable'"
            )
        return self.inverse()

    def _map(self, f: Callable[[Tensor], Tensor]) -> RefinedGridWarp:
        return RefinedGridWarp(f(self.nodes), check=False)
