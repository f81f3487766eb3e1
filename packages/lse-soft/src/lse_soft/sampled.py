"""Sampled differences: constraints from real resampling instead of infinitesimal generators.

C = E_g[Delta_g Delta_g^T] / d(g)^2 with Delta_g = S(g) - I. The guarantee that follows is a root mean
square one: for weights with kappa <= b, sqrt(E_g[(||Delta_g^T w|| / (d(g) ||w||))^2]) <= b. No single
element is promised anything; how far the worst one goes is measured in docs/results/soft.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lse_core.monotone import MonotoneMap
from lse_core.random import random_log_slopes
from lse_core.resample import axis_weights, pixel_centres
from lse_core.sampling import pixel_weights
from lse_core.separable import SeparableWarp
from lse_soft.errors import SoftError
from lse_soft.spectra.dense import equivariance_gram

__all__ = [
    "affine_difference",
    "affine_matrix",
    "angles",
    "axis_matrices",
    "path_length",
    "random_maps",
    "sampled_array_gram",
    "sampled_functional_gram",
    "sampled_mixing_gram",
    "turn",
    "warp_matrices",
]

Sample = tuple[Tensor, float]
"""A difference Delta_g and the distance d(g) of g from the identity."""


def _mean(grams: Iterable[tuple[Tensor, float]]) -> Tensor:
    total, count = None, 0
    for gram, distance in grams:
        if not distance > 0:
            raise SoftError("a sampled group element is the identity; draw others")
        part = gram / distance**2
        total = part if total is None else total + part
        count += 1
    if total is None:
        raise SoftError("sampled differences need at least one sample")
    return total / count


def sampled_functional_gram(samples: Iterable[Sample]) -> Tensor:
    """E[Delta Delta^T / d^2] (d, d), for functionals w (y = w^T x); Delta may be wide (d, e)."""
    return _mean((delta @ delta.T, distance) for delta, distance in samples)


def sampled_array_gram(samples: Iterable[Sample]) -> Tensor:
    """E[Delta^T Delta / d^2] (d, d), for arrays p that the group acts on."""
    return _mean((delta.T @ delta, distance) for delta, distance in samples)


def sampled_mixing_gram(samples: Iterable[Sample]) -> Tensor:
    """E[L^T L / d^2] with L vec(W) = vec(W Delta - Delta W), W (n, n) read row by row: (n^2, n^2)."""
    found = list(samples)
    if not found or not all(distance > 0 for _, distance in found):
        raise SoftError("sampled differences need at least one sample, none of them the identity")
    deltas = [delta for delta, _ in found]
    return equivariance_gram(deltas, deltas, [1.0 / (d * d * len(found)) for _, d in found])


def affine_matrix(
    window: tuple[int, int], pad: int, matrix: Tensor, shift: Tensor, *, border: bool = False
) -> Tensor:
    """Bilinear reading of a window's pixels at moved places.

    Row i gives x(M u_i + s) for the pixel at u_i, in pixels from the window's centre, xy order. What lies
    beyond the padded window counts as zero, or with `border` as the nearest pixel.

    Args:
        window: (height, width).
        pad: pixels added on every side, from which the signal is read too.
        matrix: M (2, 2).
        shift: s (2,).
        border: repeat the outermost pixels instead of zeros, which keeps constants as they are.

    Returns:
        (h w, (h + 2 pad)(w + 2 pad)) float64.
    """
    h, w = window
    x = (torch.arange(w, dtype=torch.float64) - 0.5 * (w - 1)).repeat(h)
    y = (torch.arange(h, dtype=torch.float64) - 0.5 * (h - 1)).repeat_interleave(w)
    moved = torch.stack([x, y], 1) @ matrix.double().T + shift.double()
    big_h, big_w = h + 2 * pad, w + 2 * pad
    # rounding must not push what lies on a pixel off it
    places = (moved + 0.5 * torch.tensor([big_w - 1, big_h - 1], dtype=torch.float64)).mul(2**32).round()
    places = places / 2**32
    if border:
        places = places.clamp_min(0).minimum(torch.tensor([big_w - 1, big_h - 1], dtype=torch.float64))
    w_x, w_y = (pixel_weights(places[:, k], n) for k, n in ((0, big_w), (1, big_h)))
    return (w_y.unsqueeze(2) * w_x.unsqueeze(1)).reshape(h * w, big_h * big_w)


def angles(largest: float, count: int) -> list[float]:
    """Midpoints of `count` equal parts of [-largest, largest], in radians, without zero."""
    step = 2.0 * largest / count
    return [t for k in range(count) if (t := -largest + (k + 0.5) * step) != 0.0]


def turn(t: float) -> Tensor:
    """(2, 2) by t radians, from x towards y."""
    c, s = math.cos(t), math.sin(t)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def affine_difference(
    window: tuple[int, int], pad: int, matrix: Tensor, shift: Tensor | None = None, *, border: bool = False
) -> Tensor:
    """`affine_matrix` minus what it gives for the identity."""
    still = torch.zeros(2)
    moved = affine_matrix(window, pad, matrix, still if shift is None else shift, border=border)
    return moved - affine_matrix(window, pad, torch.eye(2), still)


def path_length(warp: SeparableWarp | MonotoneMap) -> Tensor:
    """Length of the shortest path from the identity in the metric that makes H^1_0 fields unit, (B,).

    Twice the Fisher-Rao angle, at most pi an axis; both axes add in squares.
    """
    one = type(warp).identity(1, dtype=warp.values.dtype if isinstance(warp, MonotoneMap) else warp.dtype)
    return 2.0 * warp.distance(one, "fisher_rao")  # type: ignore[arg-type]


def random_maps(count: int, ratio: float, segments: int, distribution: str, seed: int) -> MonotoneMap:
    """`count` maps of one axis as `lse_core.random` draws them, float64."""
    generator = torch.Generator().manual_seed(seed)
    drawn = random_log_slopes(
        count, segments, ratio, distribution=distribution, generator=generator, dtype=torch.float64
    )
    return MonotoneMap.from_log_slopes(drawn[:, 0])


def axis_matrices(maps: MonotoneMap, n: int) -> Tensor:
    """S(l) on n pixels of one axis, (B, n, n): what `lse_core.scale` does with the map l."""
    return axis_weights((~maps)(pixel_centres(n, maps.knots)), n)


def warp_matrices(warps: SeparableWarp, grid: tuple[int, int]) -> Iterator[Tensor]:
    """S(l) on a grid read row by row, (n, n) for each warp of the batch: what `lse_core.scale` does."""
    h, w = grid
    for y, x in zip(axis_matrices(warps.y, h), axis_matrices(warps.x, w), strict=True):
        yield torch.kron(y.contiguous(), x.contiguous())
