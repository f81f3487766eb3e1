"""Undoing known factors as well as a warp family can: the row "true scales" of a table, its ceiling.

A generator that resizes objects knows where each was before and after. Not every family has a warp that does
this; here the best one is found by least squares. It says how much of what is possible a canonicalizer
reached.

Boxes are (B, n, 4): x0, y0, x1, y1 of n objects in coordinates of the unit square, 0 and 1 the centres of the
first and last pixel. They may reach beyond it. Objects need not be apart.

The data set "true_scales" gives locally scaled digits so undone: what trains and answers on it sees what a
canonicalizer that knows the factors would show it.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import torch
from torch import Tensor

from lse_core.errors import ShapeError, unknown_name
from lse_core.monotone import MonotoneMap
from lse_core.resample import unscale
from lse_core.separable import SeparableWarp
from lse_core.triangular import ORDERS, TriangularWarp
from lse_data import DigitsDataset, build_digits

__all__ = ["FAMILIES", "best_warp", "build_true_scales", "misfit", "undo", "unscaled_boxes"]

FAMILIES = ("separable", "triangular")
GRID = 16  # knots beside those at the edges of boxes
APART = 1e-6  # least distance of two knots
CHUNK = 200  # images whose warps are found at once


def build_true_scales(
    family: str = "triangular", cache_dir: str | os.PathLike[str] | None = None, **settings: Any
) -> DigitsDataset:
    """Locally scaled digits, their factors undone as well as a warp family can: the data set "true_scales".

    Args:
        family: "separable" or "triangular", see `undo`.
        cache_dir: see `lse_data.load_digits_dataset`; keeps the digits as they are drawn.
        **settings: fields of `lse_data.DigitsConfig`.

    Returns:
        The digits with other images; boxes and scales remain as they were drawn. Each digit gets the box that
        it has in the reference of its image, or where there is none one about the same centre. It takes 4 ms
        an image of 96 px for "separable" and 27 ms for "triangular" on one core.

    Raises:
        UnknownNameError: no such family or setting.
        DataError: a setting out of its range, or glyphs that cannot be loaded.
    """
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    drawn = build_digits(cache_dir, **settings)
    before = unscaled_boxes(drawn.boxes, drawn.scales)
    if drawn.config.reference:
        before = drawn.boxes[:: drawn.config.variants].repeat_interleave(drawn.config.variants, 0)
    undone = torch.empty_like(drawn.images)
    for pick in torch.arange(len(drawn.images)).split(CHUNK):
        images = drawn.images[pick].float() / 255
        images = undo(images, before[pick], drawn.boxes[pick], family)
        undone[pick] = (images.clamp(0.0, 1.0) * 255).round().to(torch.uint8)
    return dataclasses.replace(drawn, images=undone)


def undo(images: Tensor, before: Tensor, after: Tensor, family: str = "triangular") -> Tensor:
    """The pictures, in which objects are at `after`, with each as nearly at `before` as the family can.

    Args:
        images: (B, C, H, W) of a floating dtype.
        before: boxes that the objects shall have.
        after: boxes that they have.
        family: "separable" or "triangular"; the latter in the order that fits better, picture by picture.

    Raises:
        UnknownNameError, ShapeError: see `best_warp`.
    """
    if family == "separable":
        return unscale(images, best_warp(before, after, family).to(images.device))
    warps = [best_warp(before, after, family, order=order) for order in ORDERS]
    xy, yx = (misfit(warp, before, after).to(images.device) for warp in warps)
    made = [unscale(images, warp.to(images.device)) for warp in warps]
    return torch.where((xy <= yx).view(-1, 1, 1, 1), made[0], made[1])


def unscaled_boxes(boxes: Tensor, scales: Tensor) -> Tensor:
    """The boxes of objects about the same centres without their factors, moved into the square.

    For data without a picture at factor 1; where there is one, its boxes are the better `before`.

    Args:
        boxes: (B, n, 4), with the factors.
        scales: (B, n), the factors.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    side = (high - low) / scales.unsqueeze(-1)
    start = (0.5 * (low + high - side)).clamp_min(0.0)
    start = torch.minimum(start, (1.0 - side).clamp_min(0.0))
    return torch.cat([start, start + side], dim=-1)


def best_warp(
    before: Tensor, after: Tensor, family: str = "triangular", *, order: str = "xy", ratio: float = 16.0
) -> SeparableWarp | TriangularWarp:
    """The warp l of a family that best takes each box `before` to its box `after`, as a resize would.

    So `lse_core.unscale(picture, l)` puts the objects of a picture back. Least squares over all points of all
    boxes before; where boxes overlap, each counts. The knots are the edges of the boxes and a grid. So a map
    that takes all boxes as they are is found, and then the result is exact up to 1e-5. A triangular warp's
    first axis is fitted first, then the columns, which have their nodes at the edges of the boxes.

    Args:
        before: boxes before the change, (B, n, 4), on any device; the result is on the CPU.
        after: boxes after it.
        family: "separable" or "triangular".
        order: which axis of a triangular warp moves on its own, "xy" or "yx".
        ratio: slopes lie within [1/ratio, ratio]; above 1.

    Returns:
        Batch B, in the dtype of `before`.

    Raises:
        UnknownNameError: no such family or order.
        ShapeError: not two equal batches of boxes of a positive size.
    """
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    if order not in ORDERS:
        raise unknown_name("order", order, ORDERS)
    if before.shape != after.shape or before.ndim != 3 or before.shape[-1] != 4 or not before.shape[1]:
        raise ShapeError(
            f"boxes must be two tensors (batch, objects, 4); got {tuple(before.shape)} and "
            f"{tuple(after.shape)}"
        )
    ends = [boxes.detach().cpu().double().unflatten(-1, (2, 2)) for boxes in (before, after)]
    if not bool(torch.stack([e[:, :, 1] > e[:, :, 0] for e in ends]).all()):
        raise ShapeError("every box needs x1 > x0 and y1 > y0")
    # intervals (B, n, 2) on the first and on the second axis, before and after
    axes = (0, 1) if family == "separable" or order == "xy" else (1, 0)
    (p, p_after), (q, q_after) = ([e[..., axis] for e in ends] for axis in axes)
    size_p, size_q = (p[..., 1] - p[..., 0]).unsqueeze(-1), (q[..., 1] - q[..., 0]).unsqueeze(-1)
    one = torch.ones(p.shape[0], 1, 1, dtype=p.dtype)
    x, y = _knots(p, GRID), _knots(q, GRID)
    first = MonotoneMap(x, _fit(x, p, p_after, size_q, one, ratio)[:, 0])
    if family == "separable":
        second = MonotoneMap(y, _fit(y, q, q_after, size_p, one, ratio)[:, 0])
        return SeparableWarp(first, second).to(before.dtype)
    nodes = _knots(p, 1)
    at, width = _quadrature(nodes)
    share = ((at.unsqueeze(-1) - nodes[:, None, :-1]) / nodes.diff(dim=1)[:, None]).clamp(0.0, 1.0)
    mix = torch.cat([one.expand(-1, at.shape[1], 1), share], -1) - torch.nn.functional.pad(share, (0, 1))
    values = _fit(y, q, q_after, _inside(at, p) * width.unsqueeze(1), mix, ratio)
    return TriangularWarp(first, nodes, y, values, order).to(before.dtype)


def misfit(warp: SeparableWarp | TriangularWarp, before: Tensor, after: Tensor, points: int = 9) -> Tensor:
    """How far the warp takes points of boxes `before` from where a resize to `after` takes them, (B,).

    A root mean square over points x points places in each box, in shares of the side.
    """
    u = (torch.arange(points, dtype=warp.dtype, device=warp.device) + 0.5) / points
    share = torch.cartesian_prod(u, u)
    low, high = (boxes.to(share).unsqueeze(2).split(2, dim=-1) for boxes in (before, after))
    at, want = (ends[0] + share * (ends[1] - ends[0]) for ends in (low, high))
    return (warp(at.flatten(1, 2)) - want.flatten(1, 2)).square().sum(-1).mean(-1).sqrt()


def _knots(intervals: Tensor, grid: int) -> Tensor:
    """Ends of intervals (B, n, 2) within [0, 1] and a grid, sorted and a little apart, (B, K)."""
    even = torch.linspace(0.0, 1.0, grid + 1, dtype=intervals.dtype).expand(intervals.shape[0], -1)
    x = torch.cat([even, intervals.flatten(1).clamp(0.0, 1.0)], dim=1).sort(dim=1).values
    room = APART * torch.arange(x.shape[1], dtype=x.dtype)
    x = (x - room).cummax(dim=1).values + room
    return x / x[:, -1:]


def _quadrature(knots: Tensor) -> tuple[Tensor, Tensor]:
    """Two Gauss points in every segment, exact for squares of straight lines: places and weights, (B, 2S)."""
    left, width = knots[:, :-1], knots.diff(dim=1)
    at = torch.stack([left + width * (0.5 + sign / 12**0.5) for sign in (-1, 1)], dim=-1)
    return at.flatten(1), (0.5 * width).repeat_interleave(2, dim=1)


def _inside(at: Tensor, intervals: Tensor) -> Tensor:
    """Which places (B, P) lie in which intervals (B, n, 2): (B, n, P) of 0 and 1."""
    at = at.unsqueeze(1)
    return ((at >= intervals[..., :1]) & (at <= intervals[..., 1:])).to(at.dtype)


def _fit(
    knots: Tensor, intervals: Tensor, wanted: Tensor, weights: Tensor, mix: Tensor, ratio: float
) -> Tensor:
    """Values (B, M, K) at the knots of M increasing maps that best take intervals to those wanted.

    Args:
        knots: (B, K).
        intervals: (B, n, 2).
        wanted: (B, n, 2), where they shall be.
        weights: (B, n, Q), how much an interval counts at Q places along the other axis.
        mix: (B, Q, M), what share of which map is at each of these places.
        ratio: bound on the slopes.
    """
    at, width = _quadrature(knots)
    step = knots.diff(dim=1).unsqueeze(1)
    scale = (wanted[..., 1:] - wanted[..., :1]) / (intervals[..., 1:] - intervals[..., :1])

    def resized(u: Tensor) -> Tensor:
        return wanted[..., :1] + scale * (u.unsqueeze(1) - intervals[..., :1])

    each = weights.unsqueeze(-1) * (_inside(at, intervals) * width.unsqueeze(1)).unsqueeze(2)  # (B, n, Q, P)
    weight = each.sum(1)
    target = (each * resized(at).unsqueeze(2)).sum(1) / weight.clamp_min(1e-30)
    basis = ((at.unsqueeze(-1) - knots[:, None, :-1]) / step).clamp(0.0, 1.0)  # (B, P, K - 1)

    def slope(rises: Tensor, aim: Tensor | float) -> Tensor:
        return mix.mT @ (weight * (mix @ rises @ basis.mT - aim)) @ basis * step

    # the start: at each knot the mean of what its intervals want, straight in between
    near = torch.einsum("bnq,bqm,bnk->bnmk", weights, mix, _inside(knots, intervals))
    values = (near * resized(knots).unsqueeze(2)).sum(1) / near.sum(1).clamp_min(1e-30)
    known = near.sum(1) > 0
    known[..., 0] = known[..., -1] = True
    values[..., 0], values[..., -1] = 0.0, 1.0
    start = torch.stack([_filled(knots[b], values[b], known[b]) for b in range(len(knots))])
    rises = _projected(start.diff(dim=-1), step, ratio)
    # the largest eigenvalue bounds the step of FISTA (Beck and Teboulle, 2009), in the metric of the slopes
    probe = torch.rand(rises.shape, generator=torch.Generator().manual_seed(0), dtype=rises.dtype)
    for _ in range(30):
        probe = slope(probe, 0.0)
        probe = probe / probe.flatten(1).norm(dim=1).clamp_min(1e-30).view(-1, 1, 1)
    bound = 1.05 * slope(probe, 0.0).flatten(1).norm(dim=1).clamp_min(1e-30).view(-1, 1, 1)
    ahead, momentum = rises, 1.0
    for _ in range(300):
        new = _projected(ahead - slope(ahead, target) / bound, step, ratio)
        following = 0.5 * (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5)
        change, rises, momentum = new - rises, new, (momentum - 1.0) / following
        if float(change.abs().max()) < 1e-11:
            break
        ahead, momentum = new + momentum * change, following
    edge = torch.zeros_like(rises[..., :1])
    return torch.cat([edge, rises.cumsum(-1)[..., :-1].clamp(max=1.0), edge + 1.0], dim=-1)


def _filled(knots: Tensor, values: Tensor, known: Tensor) -> Tensor:
    """Values (M, K) with those not known put on straight lines between the next known ones, increasing."""
    rows = []
    for row, there in zip(values, known, strict=True):
        x, y = knots[there], row[there].clamp(0.0, 1.0).cummax(0).values
        i = torch.searchsorted(x, knots, right=True).clamp(1, len(x) - 1)
        rows.append(y[i - 1] + (knots - x[i - 1]) * (y[i] - y[i - 1]) / (x[i] - x[i - 1]))
    return torch.stack(rows)


def _projected(rises: Tensor, step: Tensor, ratio: float) -> Tensor:
    """The nearest rises, in slopes, that sum to 1 and have slopes within [1/ratio, ratio]: by bisection."""
    slopes = rises / step
    low = slopes.amin(-1, keepdim=True) - ratio
    high = slopes.amax(-1, keepdim=True)

    def bounded(shift: Tensor) -> Tensor:
        return (slopes - shift).clamp(1.0 / ratio, ratio) * step

    for _ in range(40):
        middle = 0.5 * (low + high)
        much = bounded(middle).sum(-1, keepdim=True) > 1.0
        low, high = torch.where(much, middle, low), torch.where(much, high, middle)
    return bounded(0.5 * (low + high))
