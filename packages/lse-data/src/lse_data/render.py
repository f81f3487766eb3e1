"""Draws glyphs into boxes on a black canvas with separable, anti-aliased triangle filters."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["quantize", "render", "tent_weights"]


def tent_weights(
    start: Tensor, length: Tensor, resolution: int, pixels: int, antialias: bool = True
) -> Tensor:
    """Row weights that resize a line of `pixels` glyph pixels to `length` canvas pixels at a sub-pixel place.

    The filter is the triangle of bilinear interpolation, widened by the shrinking factor where a glyph
    shrinks, as in PIL's and torch's antialiased resize. Beyond its pixels the glyph counts as black, so ink
    fades out over at most one filter width and does not end in a hard edge that jumps with the place.

    Args:
        start: (n,) where the glyph's first edge lies, in pixel edges of the canvas.
        length: (n,) positive length of the glyph on the canvas, in canvas pixels.
        resolution: R, number of canvas pixels.
        pixels: h, number of glyph pixels.
        antialias: widen the filter when shrinking.

    Returns:
        (n, R, h) of the same dtype and device; non-negative, each row summing to 1 where the filter lies
        inside the glyph, to less at its border, to 0 away from it.
    """
    canvas = torch.arange(resolution, dtype=start.dtype, device=start.device) + 0.5
    glyph = torch.arange(pixels, dtype=start.dtype, device=start.device)
    step = (pixels / length)[:, None]
    center = (canvas - start[:, None]) * step - 0.5  # counted in glyph pixel centres
    width = step.clamp_min(1) if antialias else torch.ones_like(step)
    weights = (1 - (center[..., None] - glyph).abs() / width[..., None]).clamp_min(0)
    # the sum over the whole lattice, not over the glyph alone: normalising by the latter would put back the
    # hard edge. It is two arithmetic series, one to each side of the centre.
    left = center - center.floor()
    total = _series(left, width) + _series(1 - left, width)
    return weights / total[..., None]


def _series(first: Tensor, width: Tensor) -> Tensor:
    """Sum max(0, 1 - (first + k) / width) over k = 0, 1, 2, ... for 0 <= first <= 1 <= width."""
    terms = (width - first).floor() + 1
    return terms - (terms * first + terms * (terms - 1) / 2) / width


def render(glyphs: Tensor, boxes: Tensor, resolution: int, antialias: bool = True) -> Tensor:
    """Draw three glyphs an image, each A_y G A_x^T; where they overlap the brighter one shows.

    Args:
        glyphs: (n, 3, h, h) in [0, 1].
        boxes: (n, 3, 4) as x0, y0, x1, y1 in pixel edges; dtype and device of `glyphs`.
        resolution: R.
        antialias: see `tent_weights`.

    Returns:
        (n, R, R) in [0, 1], of the same dtype and device.
    """
    n, digits, pixels, _ = glyphs.shape
    x0, y0, x1, y1 = boxes.reshape(-1, 4).unbind(-1)
    across = tent_weights(x0, x1 - x0, resolution, pixels, antialias)
    down = tent_weights(y0, y1 - y0, resolution, pixels, antialias)
    drawn = torch.bmm(torch.bmm(down, glyphs.reshape(-1, pixels, pixels)), across.transpose(1, 2))
    layers = drawn.view(n, digits, resolution, resolution)
    image = layers[:, 0]
    for digit in range(1, digits):
        image = torch.maximum(image, layers[:, digit])
    return image


def quantize(image: Tensor) -> Tensor:
    """Round values in [0, 1] to uint8 in [0, 255].

    Ties are common (half-bright plateaus of a glyph) and a last-digit difference between two machines or
    batch sizes would flip them; the tiny bias decides them all upwards.
    """
    return (image * 255 + (0.5 + 2.0**-20)).to(torch.uint8)
