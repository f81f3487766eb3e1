"""Distances between monotone maps and the shortest path to one, exact for piecewise-linear maps.

Everything here is of tensors: knots and the values there. `MonotoneMap` and `SeparableWarp` call it.

Two kinds of distance compare where points go ("max", "rms"); one compares slopes ("fisher_rao"): with
q = sqrt(l') every map is a point of the unit sphere of L2[0, 1], since the integral of l' is 1, and the
distance is the angle between two of them. Composing both maps with the same third one from the right
changes no "max" and no "fisher_rao" distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lse_core.errors import unknown_name
from lse_core.lazy import lazy_names

__all__ = ["DISTANCES", "combine", "curve_distance", "geodesic_values"]

DISTANCES = ("max", "rms", "fisher_rao")


def curve_distance(u: Tensor, y_a: Tensor, y_b: Tensor, kind: str = "max") -> Tensor:
    """How far two piecewise-linear maps of [0, 1] are apart, (B,), from their values at common knots.

    Args:
        u: (B, K) points that hold the knots of both, increasing from 0 to 1.
        y_a: (B, K) the values of one map there.
        y_b: (B, K) those of the other.
        kind: "max", "rms" or "fisher_rao", see `MonotoneMap.distance`.

    Raises:
        UnknownNameError: there is no such kind.
    """
    if kind not in DISTANCES:
        raise unknown_name("distance", kind, DISTANCES)
    if kind == "fisher_rao":
        return _angle(*(_safe_sqrt(y.diff(dim=1)) for y in (y_a, y_b)))
    d = y_a - y_b
    if kind == "max":
        return d.abs().amax(dim=1)
    left, right = d[:, :-1], d[:, 1:]
    return _safe_sqrt((u.diff(dim=1) * (left.square() + left * right + right.square())).sum(1) / 3.0)


def combine(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """Distance of a separable pair from the distances of its axes, (B,) each.

    The axes are independent, so the largest displacement, its root mean square and the angle (as a
    product of two spheres) all add in squares.
    """
    if kind not in DISTANCES:
        raise unknown_name("distance", kind, DISTANCES)
    return _safe_sqrt(x.square() + y.square())


def geodesic_values(knots: Tensor, values: Tensor, t: Tensor) -> Tensor:
    """Values at `knots` of the map that lies a share `t` of the way from the identity to (knots, values).

    The great circle from 1 to sqrt(l') on the unit sphere, squared and summed up. Its slopes are
    constant wherever the map's are, so the same knots hold it exactly, and its length is the
    "fisher_rao" distance.

    Args:
        knots: (B, K) increasing from 0 to 1.
        values: (B, K) the same.
        t: (B, 1), 0 giving the identity and 1 the map.
    """
    start, end = _safe_sqrt(knots.diff(dim=1)), _safe_sqrt(values.diff(dim=1))
    angle = _angle(start, end).unsqueeze(1)
    small = angle < 1e-4
    safe = torch.where(small, torch.ones_like(angle), angle)
    # sin(t a)/sin(a) tends to t as the map tends to the identity
    back = torch.where(small, 1.0 - t, torch.sin((1.0 - t) * safe) / torch.sin(safe))
    forth = torch.where(small, t, torch.sin(t * safe) / torch.sin(safe))
    rises = (back * start + forth * end).square()
    inner = (rises.cumsum(dim=1) / rises.sum(dim=1, keepdim=True))[:, :-1]
    edge = torch.zeros_like(rises[:, :1])
    return torch.cat([edge, inner, edge + 1.0], dim=1)


def _angle(q_a: Tensor, q_b: Tensor) -> Tensor:
    """Angle between points of the sphere, roots (B, K-1) of the rises on the same segments; (B,)."""
    # the chord keeps small angles exact, where the arc cosine of the sum of q_a q_b would round them to 3e-4
    chord = _safe_sqrt((q_a - q_b).square().sum(1))
    return 2.0 * torch.asin((0.5 * chord).clamp_max(1.0))


def _safe_sqrt(x: Tensor) -> Tensor:
    """Square root with the derivative 0 at 0, where autograd's is infinite; rounding below 0 counts as 0."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, torch.ones_like(x)).sqrt(), torch.zeros_like(x))


__getattr__, __dir__ = lazy_names(__name__, {}, {"map_distance": "call a.distance(b, kind) of the maps"})
