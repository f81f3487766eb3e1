"""Separable warps of the unit square, the exact two-dimensional monotone scaling group (Lemma 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lse_core.batched import Batched, saved_by
from lse_core.errors import ShapeError
from lse_core.geometry import combine
from lse_core.log_slopes import knots_and_values, logits_to_log_slopes
from lse_core.monotone import MonotoneMap

__all__ = ["SeparableWarp"]


class SeparableWarp(Batched):
    """A batch of warps l(x, y) = (l_X(x), l_Y(y)) of the unit square.

    Their Jacobians are diagonal with positive entries, so they are symmetric positive definite and
    commute: what Lemma 2 (section A2.2) asks of a group. The paper's coupled grids (A26 to A29) only
    approximate it. `w @ v` composes, (w @ v)(p) = w(v(p)); `~w` inverts; both are exact.

    Coordinates are in xy order within [0, 1]: 0 is the centre of the first pixel and 1 that of the
    last (align_corners=True).

    Args:
        x: map of the horizontal axis, batch B.
        y: map of the vertical axis, batch B (or either a batch of one).
    """

    __slots__ = ("x", "y")
    PARTS = ("x", "y")

    x: MonotoneMap
    y: MonotoneMap

    def __init__(self, x: MonotoneMap, y: MonotoneMap) -> None:
        self.x, self.y = x, y
        # pytree rebuilding passes placeholders through here
        if isinstance(x, MonotoneMap) and isinstance(y, MonotoneMap) and x.batch != y.batch:
            batch = max(x.batch, y.batch)
            self.x, self.y = x.broadcast(batch), y.broadcast(batch)

    @classmethod
    def identity(
        cls,
        batch: int = 1,
        segments: int = 1,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> SeparableWarp:
        """The neutral element, `batch` copies of it."""
        m = MonotoneMap.identity(batch, segments, device=device, dtype=dtype)
        return cls(m, m)

    @classmethod
    def from_log_slopes(cls, w: Tensor) -> SeparableWarp:
        """Warp from log-slopes (B, 2, N), axis x first; see `MonotoneMap.from_log_slopes`."""
        if w.ndim != 3 or w.shape[1] != 2:
            raise ShapeError(
                f"log-slopes of a separable warp must be (batch, 2, segments); got {tuple(w.shape)}"
            )
        knots, values = knots_and_values(w)
        return cls(*(MonotoneMap(knots[:, i], values[:, i], check=False) for i in (0, 1)))

    @classmethod
    def from_logits(cls, z: Tensor, ratio: float = 2.0) -> SeparableWarp:
        """Warp with slopes within [1/ratio, ratio] from logits (B, 2, N), axis x first; zero is identity."""
        return cls.from_log_slopes(logits_to_log_slopes(z, ratio))

    @classmethod
    def random(
        cls,
        batch: int = 1,
        segments: int = 4,
        ratio: float = 2.0,
        *,
        distribution: str = "log_uniform",
        strength: float = 1.0,
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> SeparableWarp:
        """Random warps, Omega in Eq. 23: see `lse_core.random.random_log_slopes`."""
        from lse_core.random import random_log_slopes

        how: dict[str, Any] = {"distribution": distribution, "strength": strength, "generator": generator}
        return cls.from_log_slopes(
            random_log_slopes(batch, segments, ratio, device=device, dtype=dtype, **how)
        )

    @classmethod
    def stack(cls, warps: Sequence[SeparableWarp]) -> SeparableWarp:
        """All warps of a sequence in one batch, in order; knot counts may differ."""
        return cls(MonotoneMap.stack([w.x for w in warps]), MonotoneMap.stack([w.y for w in warps]))

    def __call__(self, points: Tensor) -> Tensor:
        """l(p) for points (B, n, 2) or (n, 2), xy order; returns (B, n, 2)."""
        if points.shape[-1] != 2 or points.ndim not in (2, 3):
            raise ShapeError(f"points must be (n, 2) or (batch, n, 2) in xy order; got {tuple(points.shape)}")
        return torch.stack([self.x(points[..., 0]), self.y(points[..., 1])], dim=-1)

    def __invert__(self) -> SeparableWarp:
        """The inverse warp, exactly."""
        return SeparableWarp(~self.x, ~self.y)

    def __matmul__(self, other: SeparableWarp) -> SeparableWarp:
        """Group product, (self @ other)(p) = self(other(p)), exact."""
        if not isinstance(other, SeparableWarp):
            return NotImplemented
        return SeparableWarp(self.x @ other.x, self.y @ other.y)

    def resample(self, segments: int) -> SeparableWarp:
        """Both axes on `segments` equal segments; error bound as in `MonotoneMap.resample`."""
        return SeparableWarp(self.x.resample(segments), self.y.resample(segments))

    def distance(self, other: SeparableWarp, kind: str = "max") -> Tensor:
        """How far two warps are apart, (B,), exactly.

        Args:
            other: the other warps, as many or one.
            kind: "max", the largest displacement between them as a share of the side; "rms", its root
                mean square over the square; "fisher_rao", the length of the shortest path between
                their slopes (see `lse_core.geometry`).
        """
        return combine(self.x.distance(other.x, kind), self.y.distance(other.y, kind), kind)

    def geodesic(self, t: float | Tensor) -> SeparableWarp:
        """The warp a share `t` of the way from the identity to this one; see `MonotoneMap.geodesic`."""
        return SeparableWarp(self.x.geodesic(t), self.y.geodesic(t))

    def state_dict(self) -> dict[str, Tensor]:
        """The warp as named tensors, "x.knots" to "y.values", for safetensors or a module's buffers."""
        return {
            f"{axis}.{name}": t
            for axis, m in (("x", self.x), ("y", self.y))
            for name, t in m.state_dict().items()
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> SeparableWarp:
        """The warp that `state_dict` described, checked; ShapeError where a tensor is missing."""
        axes = [
            {name.removeprefix(f"{axis}."): t for name, t in state.items() if name.startswith(f"{axis}.")}
            for axis in ("x", "y")
        ]
        if sum(map(len, axes)) != len(state):
            raise ShapeError(f"a separable warp's state is 'x.knots' to 'y.values'; got {sorted(state)}")
        return cls(*(MonotoneMap.from_state_dict(axis) for axis in axes))

    def __repr__(self) -> str:
        return f"SeparableWarp(x={self.x!r}, y={self.y!r})"


def _rebuild(x: MonotoneMap, y: MonotoneMap) -> SeparableWarp:
    return SeparableWarp(x, y)


saved_by(SeparableWarp, _rebuild)
