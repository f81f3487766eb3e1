"""Monotone maps of the unit interval: the exact group of Eq. 8 to 12, one axis at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lse_core.batched import Batched, saved_by
from lse_core.constants import in_a_graph
from lse_core.errors import DTypeError, ShapeError, WarpError
from lse_core.geometry import curve_distance, geodesic_values
from lse_core.log_slopes import (
    bound_log_slopes,
    knots_and_values,
    logits_to_log_slopes,
    ramp,
    uniform_basis,
    uniform_knots,
    with_ends,
)

__all__ = [
    "MonotoneMap",
    "bound_log_slopes",
    "logits_to_log_slopes",
    "ramp",
    "uniform_basis",
    "uniform_knots",
]


class MonotoneMap(Batched):
    """A batch of increasing piecewise-linear bijections of [0, 1], l in Eq. 8 and 12.

    Kept as sorted knots and the values there, so that the inverse swaps the two, composition merges
    knots, and the group laws hold to rounding. Outside [0, 1] the end segments continue as straight
    lines. `m @ n` is the group product of Eq. 9, (m @ n)(u) = m(n(u)); `~m` is the inverse. A batch
    of one combines with any batch.

    Args:
        knots: (B, K) floating point, K >= 2, strictly increasing from 0 to 1.
        values: (B, K) the same dtype and device, strictly increasing from 0 to 1.
        check: verify the order of both (reads one flag back from the device; skipped while tracing).

    Raises:
        ShapeError, DTypeError: the two do not fit each other.
        WarpError: not increasing, not starting at 0 or not ending at 1.
    """

    __slots__ = ("knots", "values")
    PARTS = ("knots", "values")

    knots: Tensor
    values: Tensor

    def __init__(self, knots: Tensor, values: Tensor, *, check: bool = True) -> None:
        self.knots = knots
        self.values = values
        if check:
            self._check()

    def _check(self) -> None:
        x, y = self.knots, self.values
        if x.ndim != 2 or x.shape != y.shape or x.shape[1] < 2:
            raise ShapeError(
                f"knots and values must both be (batch, K >= 2); got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if not x.is_floating_point() or x.dtype != y.dtype or x.device != y.device:
            raise DTypeError(
                f"knots and values must share one floating dtype and device; "
                f"got {x.dtype} on {x.device} and {y.dtype} on {y.device}"
            )
        if torch.compiler.is_compiling():
            return
        for name, t in (("knots", x), ("values", y)):
            steps = t.diff(dim=1)
            if not bool((steps > 0).all()):  # also catches NaN
                row = int((~(steps > 0)).any(dim=1).nonzero()[0])
                raise WarpError(
                    f"{name} of map {row} do not increase strictly; a monotone map needs every slope positive"
                )
            off = torch.maximum(t[:, 0].abs().max(), (t[:, -1] - 1).abs().max())
            if float(off) > 16 * torch.finfo(t.dtype).eps:
                raise WarpError(f"{name} must start at 0 and end at 1; the ends are off by {float(off):.3g}")

    # construction -----------------------------------------------------------------------------

    @classmethod
    def identity(
        cls,
        batch: int = 1,
        segments: int = 1,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> MonotoneMap:
        """The neutral element, `batch` copies of it, on `segments` equal segments."""
        k = uniform_knots(segments, device=device, dtype=dtype).expand(batch, -1)
        return cls(k, k, check=False)

    @classmethod
    def from_log_slopes(cls, w: Tensor) -> MonotoneMap:
        """Map on N equal segments whose slopes are N softmax(w); Eq. 12 with phi by construction valid.

        Args:
            w: (B, N) floating point, any real values; adding a constant changes nothing.
        """
        if w.ndim != 2:
            raise ShapeError(f"log-slopes must be (batch, segments); got {tuple(w.shape)}")
        return cls(*knots_and_values(w), check=False)

    @classmethod
    def from_logits(cls, z: Tensor, ratio: float = 2.0) -> MonotoneMap:
        """Map whose slopes lie within [1/ratio, ratio] whatever the logits; zero gives the identity.

        Args:
            z: (B, N) floating point.
            ratio: bound r > 1 on the slopes; the log-slopes are ln(r)/2 tanh(z).
        """
        return cls.from_log_slopes(logits_to_log_slopes(z, ratio))

    @classmethod
    def stack(cls, maps: Sequence[MonotoneMap]) -> MonotoneMap:
        """All maps of a sequence in one batch, in order; dtype and device must agree.

        Maps of fewer knots get their last segment cut into equal pieces, which changes no map.
        """
        if not maps:
            raise ShapeError("stack needs at least one map")
        most = max(m.segments for m in maps)
        padded = [m._subdivide(most) for m in maps]
        kinds = sorted({f"{m.knots.dtype} on {m.knots.device}" for m in maps})
        if len(kinds) > 1:
            raise DTypeError(f"stack needs maps of one dtype and device; got {' and '.join(kinds)}")
        knots, values = (torch.cat([pair[i] for pair in padded]) for i in (0, 1))
        return cls(knots, values, check=False)

    def _subdivide(self, segments: int) -> tuple[Tensor, Tensor]:
        extra = segments - self.segments
        share = torch.arange(1, extra + 1, device=self.knots.device, dtype=self.knots.dtype) / (extra + 1)
        pair = []
        for t in (self.knots, self.values):
            start, end = t[:, -2:-1], t[:, -1:]
            pair.append(torch.cat([t[:, :-1], start + share * (end - start), end], dim=1))
        return pair[0], pair[1]

    # evaluation -------------------------------------------------------------------------------

    def _segments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Left knots, widths and rises of all segments, each (B, 1, K-1); zero widths made harmless."""
        x, y = self.knots.unsqueeze(1), self.values.unsqueeze(1)
        dx = x[..., 1:] - x[..., :-1]
        # composition can merge two knots into one: such a segment rises by rounding only, and 1/dx^2
        # in its gradient would overflow
        dx = torch.where(dx > torch.finfo(dx.dtype).eps ** 1.5, dx, torch.ones_like(dx))
        return x[..., :-1], dx, y[..., 1:] - y[..., :-1]

    def _points(self, u: Tensor) -> Tensor:
        if u.ndim == 1:
            u = u.unsqueeze(0)
        if u.ndim != 2 or (u.shape[0] != self.batch and 1 not in (u.shape[0], self.batch)):
            raise ShapeError(f"points must be (n,) or ({self.batch}, n); got {tuple(u.shape)}")
        return u.unsqueeze(-1)

    def __call__(self, u: Tensor) -> Tensor:
        """l(u), as y0 + sum_i dy_i clamp((u - x_i)/dx_i, 0, 1): no search, so it batches and exports.

        Where no gradient and no graph is wanted, a search finds the segment of each point, which costs
        less. In float32 the two ways differ by up to some 1e-7.

        Args:
            u: (n,) or (B, n) points, in the map's dtype.

        Returns:
            (B, n). The derivative in u at a knot is the mean of the slopes either side.
        """
        if self._may_search(u):
            return self._search(self._points(u).squeeze(-1))
        x, dx, dy = self._segments()
        t = (self._points(u) - x) / dx
        inside = (dy * ramp(t)).sum(-1) + self.values[:, :1]
        # straight continuation beyond the ends; halves again, so the end slopes come out right
        below, above = t[..., 0], t[..., -1] - 1.0
        return inside + 0.5 * (dy[..., 0] * (below - below.abs()) + dy[..., -1] * (above + above.abs()))

    def _may_search(self, u: Tensor) -> bool:
        if u.dtype != self.knots.dtype or in_a_graph():
            return False
        wanted = u.requires_grad or self.knots.requires_grad or self.values.requires_grad
        return not (wanted and torch.is_grad_enabled())

    def _search(self, u: Tensor) -> Tensor:
        batch = self.batch if u.shape[0] == 1 else u.shape[0]
        x, y, u = (t.expand(batch, -1).contiguous() for t in (self.knots, self.values, u))
        i = torch.searchsorted(x, u, right=True).clamp(1, self.segments) - 1
        dx = x.diff(dim=1)
        dx = torch.where(dx > torch.finfo(dx.dtype).eps ** 1.5, dx, 1.0)
        slopes = y.diff(dim=1) / dx
        return torch.addcmul(y.gather(1, i), slopes.gather(1, i), u - x.gather(1, i))

    def slope(self, u: Tensor) -> Tensor:
        """dl/du at `u`, (n,) or (B, n) to (B, n): the local scaling factor of Eq. 8.

        At a knot it is the mean of the slopes either side, as autograd gives it.
        """
        x, dx, _ = self._segments()
        t = (self._points(u) - x) / dx
        lower, upper = torch.sign(t), torch.sign(t - 1.0)
        last = t.shape[-1] - 1
        lower = torch.cat([torch.ones_like(lower[..., :1]), lower[..., 1:]], dim=-1)
        upper = torch.cat([upper[..., :last], -torch.ones_like(upper[..., :1])], dim=-1)
        return (self.slopes.unsqueeze(1) * (lower - upper) * 0.5).sum(-1)

    # the group --------------------------------------------------------------------------------

    def __invert__(self) -> MonotoneMap:
        """The inverse map, exactly: knots and values change places."""
        return MonotoneMap(self.values, self.knots, check=False)

    def __matmul__(self, other: MonotoneMap) -> MonotoneMap:
        """Group product, (self @ other)(u) = self(other(u)), exact by merging knots (K1 + K2 - 2 of them).

        float32 knots are 6e-8 apart near 1, so the product's value there is known to 6e-8 times its
        slope: the laws hold to 1e-6 while the product's own slopes stay below about 16.
        """
        if not isinstance(other, MonotoneMap):
            return NotImplemented
        batch = max(self.batch, other.batch)
        mine, theirs = self.broadcast(batch), other.broadcast(batch)
        inner_x, inner_y = mine.knots[:, 1:-1], mine.values[:, 1:-1]
        x = torch.cat([theirs.knots, (~theirs)(inner_x)], dim=1)
        y = torch.cat([mine(theirs.values), inner_y], dim=1)
        # both rows are images of one increasing sequence: sorting each keeps the pairs together
        # rounding may leave an end a hair off 0 or 1; the ends are part of the contract
        x, y = (with_ends(t.sort(dim=1).values.clamp(0.0, 1.0)) for t in (x, y))
        return MonotoneMap(x, y, check=False)

    def resample(self, segments: int) -> MonotoneMap:
        """The map's interpolant on `segments` equal segments: the family of Eq. 12, which is not a group.

        Between the new knots the result is off by at most (s_max - s_min) / (4 segments), where
        s_max and s_min are the map's extreme slopes; at the new knots it is exact.
        """
        if segments < 1:
            raise ShapeError(f"resample needs at least one segment; got {segments}")
        u = uniform_knots(segments, device=self.knots.device, dtype=self.knots.dtype)
        y = with_ends(self(u))
        return MonotoneMap(u.expand_as(y), y, check=False)

    def distance(self, other: MonotoneMap, kind: str = "max") -> Tensor:
        """How far two maps are apart, (B,), exactly.

        Args:
            other: as many maps, or either side a batch of one.
            kind: "max", the largest |self(u) - other(u)|; "rms", its root mean square over [0, 1];
                "fisher_rao", the angle between the square roots of both slopes, within [0, pi/2).

        Raises:
            UnknownNameError: there is no such kind.
        """
        batch = max(self.batch, other.batch)
        a, b = self.broadcast(batch), other.broadcast(batch)
        # between neighbouring knots of either map both are straight, so sums over these are exact integrals
        u = torch.cat([a.knots, b.knots], dim=1).sort(dim=1).values
        return curve_distance(u, a(u), b(u), kind)

    def geodesic(self, t: float | Tensor) -> MonotoneMap:
        """The map a share `t` of the way from the identity to this one, by the shortest path.

        Shortest in the "fisher_rao" distance (see `lse_core.geometry`), at constant speed.

        Args:
            t: a number, or (B,) numbers; within [0, 1], 0 giving the identity and 1 this map.
        """
        share = torch.as_tensor(t, device=self.knots.device, dtype=self.knots.dtype)
        if share.ndim > 1 or (share.ndim == 1 and share.shape[0] != self.batch):
            raise ShapeError(f"t must be a number or ({self.batch},); got {tuple(share.shape)}")
        values = geodesic_values(self.knots, self.values, share.reshape(-1, 1))
        return MonotoneMap(self.knots, values, check=False)

    # description ------------------------------------------------------------------------------

    @property
    def segments(self) -> int:
        """Number of straight pieces, K - 1."""
        return self.knots.shape[1] - 1

    @property
    def slopes(self) -> Tensor:
        """Slope of every segment, (B, K-1), all positive.

        Composition can merge knots up to rounding. The quotient of a segment that narrow means
        nothing, so it gets the slope across itself and its neighbours.
        """
        x, y = self.knots, self.values
        # below this a quotient of two rounded differences is off by more than a percent
        narrowest = 64 * torch.finfo(x.dtype).eps
        dx, dy = x.diff(dim=1), y.diff(dim=1)
        last = x.shape[1] - 1
        left = torch.arange(last, device=x.device)
        for reach in (1, 2, 3):  # a product of four maps can leave three narrow segments side by side
            narrow = torch.minimum(dx, dy) < narrowest
            lo, hi = (left - reach).clamp_min(0), (left + 1 + reach).clamp_max(last)
            dx = torch.where(narrow, x[:, hi] - x[:, lo], dx)
            dy = torch.where(narrow, y[:, hi] - y[:, lo], dy)
        return dy / dx

    @property
    def log_slopes(self) -> Tensor:
        """Natural logarithm of `slopes`, (B, K-1); `from_log_slopes` takes it back on equal segments."""
        return self.slopes.log()

    def state_dict(self) -> dict[str, Tensor]:
        """The map as named tensors, "knots" and "values", for safetensors or a module's buffers."""
        return {"knots": self.knots, "values": self.values}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> MonotoneMap:
        """The map that `state_dict` described, checked; ShapeError where a tensor is missing."""
        if set(state) != {"knots", "values"}:
            raise ShapeError(
                f"the state of a monotone map must have the keys 'knots' and 'values'; got {sorted(state)}"
            )
        return cls(state["knots"], state["values"])

    def __repr__(self) -> str:
        if torch.compiler.is_compiling() or not isinstance(self.knots, Tensor):
            return "MonotoneMap(...)"
        s = self.slopes.detach()
        return (
            f"MonotoneMap(batch={self.batch}, segments={self.segments}, "
            f"slopes {float(s.min()):.3g} to {float(s.max()):.3g}, {self.knots.dtype}, {self.knots.device})"
        )


def check_maps(what: str, knots: Tensor, values: Tensor) -> None:
    """Raise the WarpError of `MonotoneMap`, begun with `what`, unless these are monotone maps."""
    try:
        MonotoneMap(knots, values)
    except WarpError as error:
        raise WarpError(f"{what}: {error}") from error


def _rebuild(knots: Tensor, values: Tensor) -> MonotoneMap:
    return MonotoneMap(knots, values, check=False)


saved_by(MonotoneMap, _rebuild)
