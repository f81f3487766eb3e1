"""From uniform random numbers to which digits an image shows and where they sit.

Coordinates here are pixel edges: the canvas is [0, R] x [0, R], pixel i covers [i, i + 1], x runs right and
y down. Everything is float64 on the CPU; a few numbers an image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lse_data.config import DIGITS_PER_IMAGE, DIRECTIONS, DigitsConfig

__all__ = ["DRAWS", "Base", "Picker", "boxes", "factors", "to_unit"]

# uniform numbers an image takes: number, 3 glyphs, direction, 4 gaps along, 4 across, line, 3 jitters
_WIDTHS = (1, 3, 1, 4, 4, 1, 3)
DRAWS = sum(_WIDTHS)
"""Uniform numbers in [0, 1) that one base image consumes."""


class Base(NamedTuple):
    """What the variants of one base share; n images."""

    labels: Tensor
    """int64 (n,), the number shown, 0 to 999"""
    glyphs: Tensor
    """int64 (n, 3), positions in the picker's glyphs, in reading order"""
    direction: Tensor
    """int64 (n,), codes of `DIRECTIONS`"""
    gaps: Tensor
    """float64 (n, 2, 4), shares of the free length along and across, each row summing to 1"""
    line: Tensor
    """float64 (n, 1) in [0, 1), where in its free play the line of a row or column lies"""
    jitter: Tensor
    """float64 (n, 3) in [-1/2, 1/2), offset of each digit's centre from the line, in its own sizes"""


class Picker:
    """Chooses numbers and glyphs: every number with equal chance, then every glyph of each digit.

    Args:
        labels: int64 (G,), the digit each glyph shows; all ten occur.
        config: directions and jitter are taken from it.
    """

    def __init__(self, labels: Tensor, config: DigitsConfig) -> None:
        self.order = torch.argsort(labels, stable=True)
        self.counts = torch.bincount(labels, minlength=10)
        self.starts = torch.cumsum(self.counts, 0) - self.counts
        self.codes = torch.tensor([DIRECTIONS.index(name) for name in config.directions])
        self.jitter = config.jitter

    def __call__(self, uniform: Tensor) -> Base:
        """Turn uniform numbers, float64 (n, DRAWS) in [0, 1), into n bases; row i depends on row i alone."""
        number, glyph, direction, along, across, line, jitter = uniform.split(_WIDTHS, dim=1)
        labels = (number.squeeze(1) * 1000).long()
        digits = torch.stack((labels // 100, labels // 10 % 10, labels % 10), dim=1)
        pick = self.starts[digits] + (glyph * self.counts[digits]).long()
        # normalised exponentials share the free length evenly at random (Dirichlet with all ones)
        spacing = -torch.log1p(-torch.stack((along, across), dim=1))
        gaps = spacing / spacing.sum(-1, keepdim=True).clamp_min(1e-300)
        code = self.codes[(direction.squeeze(1) * len(self.codes)).long()]
        return Base(labels, self.order[pick], code, gaps, line, (jitter - 0.5) * self.jitter)


def factors(uniform: Tensor, config: DigitsConfig) -> Tensor:
    """Resize factors from uniform numbers in [0, 1): float32 of the same shape, within `config.scale`."""
    low, high = config.scale
    return (low + (high - low) * uniform).float()


def boxes(base: Base, factor: Tensor, config: DigitsConfig) -> Tensor:
    """Place the digits.

    Digits follow each other along the direction in reading order; the free length is shared by the gaps. If
    the digits are longer than the canvas they overlap by equal amounts instead, and the first and the last
    touch the border. In a diagonal both axes advance, each with gaps of its own.

    Args:
        base: n bases.
        factor: float32 (n, 3), the resize factors.
        config: resolution and glyph size are taken from it.

    Returns:
        float64 (n, 3, 4): x0, y0, x1, y1 in pixel edges, inside [0, R], square with side factor * glyph size.
    """
    room = float(config.resolution)
    size = factor.double() * config.glyph_pixels
    along, across = _queue(size, base.gaps[:, 0], room), _queue(size, base.gaps[:, 1], room)
    beside = _beside_line(size, base.line, base.jitter, room)
    row, column = (base.direction[:, None] == DIRECTIONS.index(name) for name in DIRECTIONS[:2])
    x = torch.where(column, beside, along)
    y = torch.where(row, beside, torch.where(column, along, across))
    # rounding may push a box a hair over the edge
    corner = torch.stack((x, y), dim=-1).clamp_min(0)
    corner = torch.minimum(corner, (room - size).clamp_min(0)[..., None])
    return torch.cat((corner, corner + size[..., None]), dim=-1)


def _queue(size: Tensor, gaps: Tensor, room: float) -> Tensor:
    """Give the starts, (n, 3), of intervals of length `size` in a queue through [0, room]."""
    free = room - size.sum(1, keepdim=True)
    even = torch.tensor([0.0, 1 / (DIGITS_PER_IMAGE - 1), 1 / (DIGITS_PER_IMAGE - 1)], dtype=size.dtype)
    gap = torch.where(free >= 0, gaps[:, :DIGITS_PER_IMAGE], even) * free
    return gap.cumsum(1) + size.cumsum(1) - size


def _beside_line(size: Tensor, line: Tensor, jitter: Tensor, room: float) -> Tensor:
    """Give the starts, (n, 3), of intervals that all cross one random line and stay inside [0, room]."""
    start = size * (jitter - 0.5)  # relative to the line
    low = (-start).amax(1, keepdim=True)
    high = room - (start + size).amax(1, keepdim=True)
    # very large digits may leave no such line; from the middle, boxes clamp to the canvas and still overlap
    position = torch.where(low <= high, low + line * (high - low), (low + high) / 2)
    return position + start


def to_unit(edges: Tensor, resolution: int) -> Tensor:
    """Turn pixel edges into unit coordinates with align_corners: pixel centre 0 is 0, pixel centre R-1 is 1.

    A box that touches the canvas border therefore reaches half a pixel beyond [0, 1].
    """
    return (edges - 0.5) / (resolution - 1)
