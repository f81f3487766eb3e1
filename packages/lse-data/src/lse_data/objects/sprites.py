"""Single objects before they are placed: colours and opacity in a square."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lse_data.glyphs import Glyphs
from lse_data.objects.photographs import cutout

__all__ = ["PIXELS", "sprite"]

PIXELS = 128
"""Side of a sprite; it is averaged down when drawn."""

SOFT = 1.5 / PIXELS  # half the width of an edge


def sprite(name: str, rng: np.random.Generator, glyphs: Glyphs, avoid: Tensor) -> Tensor:
    """Draw one object of a class, float64 (4, S, S): colours times opacity, and opacity, within [0, 1].

    Args:
        name: the class, one of `class_names()` without the background.
        rng: decides its pose, its texture and which glyph it is.
        glyphs: the digits to choose from.
        avoid: (3,) the mean colour of the background, from which its colours keep away.
    """
    if name in ("flower", "pagoda"):
        colours, opacity = cutout(name, PIXELS)
        if rng.random() < 0.5:
            colours, opacity = colours.flip(-1), opacity.flip(-1)
        colours = (colours * rng.uniform(0.8, 1.2)).clamp(0.0, 1.0)
    else:
        if name.startswith("digit "):
            opacity = _digit(int(name.removeprefix("digit ")), rng, glyphs)
        else:
            opacity = _shape(name, rng)
        colours = _texture(rng, avoid)
    return torch.cat([colours * opacity, opacity[None]])


def _digit(digit: int, rng: np.random.Generator, glyphs: Glyphs) -> Tensor:
    """The strokes of a scanned digit, with a smooth outline."""
    ink = glyphs.one_of(digit, rng).double()
    ink = F.interpolate(ink[None, None], (PIXELS, PIXELS), mode="bicubic", align_corners=False)[0, 0]
    return ((ink - 0.4) * 8.0 + 0.5).clamp(0.0, 1.0)


def _shape(name: str, rng: np.random.Generator) -> Tensor:
    t = (torch.arange(PIXELS, dtype=torch.float64) + 0.5) / PIXELS * 2.0 - 1.0
    y, x = torch.meshgrid(t, t, indexing="ij")
    a = float(rng.uniform(-math.pi, math.pi))
    x, y = math.cos(a) * x + math.sin(a) * y, math.cos(a) * y - math.sin(a) * x
    return (0.5 - DISTANCES[name](x, y) / (2.0 * SOFT)).clamp(0.0, 1.0)


def _box(x: Tensor, y: Tensor, half: float, half_y: float | None = None) -> Tensor:
    return torch.maximum(x.abs() - half, y.abs() - (half if half_y is None else half_y))


def _corners(x: Tensor, y: Tensor, corners: int, inner: float) -> Tensor:
    """A regular polygon, or a star whose inner corners lie at `inner` of the radius."""
    radius, step = 0.95, math.pi / corners
    r, angle = torch.hypot(x, y), torch.atan2(y, x)
    angle = (torch.remainder(angle, 2.0 * step) - step).abs()  # 0 at an inner corner, `step` at an outer one
    p, q = (radius * inner, 0.0), (radius * math.cos(step), radius * math.sin(step))
    edge_x, edge_y = q[0] - p[0], q[1] - p[1]
    px, py = r * torch.cos(angle) - p[0], r * torch.sin(angle) - p[1]
    return (px * edge_y - py * edge_x) / math.hypot(edge_x, edge_y)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    # about the distance to the outline, below 0 within; coordinates in [-1, 1]
    "disc": lambda x, y: torch.hypot(x, y) - 0.9,
    "square": lambda x, y: _box(x, y, 0.68),
    "triangle": lambda x, y: _corners(x, y, 3, 0.5),
    "star": lambda x, y: _corners(x, y, 5, 0.42),
    "ring": lambda x, y: (torch.hypot(x, y) - 0.66).abs() - 0.24,
    "cross": lambda x, y: torch.minimum(_box(x, y, 0.9, 0.27), _box(x, y, 0.27, 0.9)),
}


def _texture(rng: np.random.Generator, avoid: Tensor) -> Tensor:
    """Stripes, checks, dots or clouds of two colours, (3, S, S)."""
    first = _colour(rng, avoid, 0.55)
    second = (first + torch.from_numpy(rng.uniform(-0.35, 0.35, 3))).clamp(0.0, 1.0)
    t = torch.arange(PIXELS, dtype=torch.float64) / PIXELS
    y, x = torch.meshgrid(t, t, indexing="ij")
    a, waves = float(rng.uniform(0.0, math.pi)), float(rng.uniform(3.0, 7.0))
    u = 2.0 * math.pi * waves * (math.cos(a) * x + math.sin(a) * y)
    v = 2.0 * math.pi * waves * (math.cos(a) * y - math.sin(a) * x)
    kind = int(rng.integers(4))
    if kind == 0:
        pattern = torch.sin(u)
    elif kind == 1:
        pattern = torch.sin(u) * torch.sin(v) * 3.0
    elif kind == 2:
        pattern = (torch.sin(u) + torch.sin(v) - 0.8) * 2.0
    else:
        coarse = torch.from_numpy(rng.normal(0.0, 1.5, (1, 1, 6, 6)))
        pattern = F.interpolate(coarse, (PIXELS, PIXELS), mode="bicubic", align_corners=False)[0, 0]
    share = (0.5 + pattern).clamp(0.0, 1.0)
    return first[:, None, None] * share + second[:, None, None] * (1.0 - share)


def _colour(rng: np.random.Generator, avoid: Tensor, distance: float) -> Tensor:
    """A colour at least `distance` away from another one, or the farthest of many tries."""
    tries = torch.from_numpy(rng.uniform(0.0, 1.0, (16, 3)))
    away = (tries - avoid).norm(dim=1)
    far = torch.nonzero(away >= distance)[:, 0]
    return tries[int(far[0]) if len(far) else int(away.argmax())]
