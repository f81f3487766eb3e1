"""Rows of captioned pictures: the image, the ground truth, the prediction and the warps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lse_core.resample import unscale
from lse_seg.random_warps import Warp

__all__ = ["canonical_picture", "draw_warp", "row"]

Picture = NDArray[np.uint8]
GAP, LINE, LEAST = 6, 20, 192


def row(panels: Sequence[tuple[str, Picture]]) -> Picture:
    """Pictures (H, W, 3) side by side, each with its caption above; small ones are enlarged."""
    height, width = panels[0][1].shape[:2]
    zoom = max(1, -(-LEAST // min(height, width)))
    height, width = height * zoom, width * zoom
    canvas = Image.new("RGB", (len(panels) * (width + GAP) + GAP, height + LINE + GAP), (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    font: Any = ImageFont.load_default(12)
    for i, (caption, picture) in enumerate(panels):
        x = GAP + i * (width + GAP)
        shown = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
        canvas.paste(shown, (x, LINE))
        pen.text((x, 3), caption, fill=(0, 0, 0), font=font)
    return np.asarray(canvas, dtype=np.uint8)


def draw_warp(picture: Picture, warp: Warp, lines: int = 9) -> Picture:
    """A picture (H, W, 3) with the lines that become an even grid in its canonical form; the first warp's."""
    height, width = picture.shape[:2]
    zoom = max(1, -(-LEAST // min(height, width)))
    image = Image.fromarray(picture).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    first = warp[0].to("cpu")
    t = torch.linspace(0.0, 1.0, 65, dtype=first.dtype)
    ends = torch.tensor([width - 1, height - 1], dtype=first.dtype)
    for at in torch.linspace(0.0, 1.0, lines, dtype=first.dtype):
        for points in (torch.stack([t, at.expand(65)], -1), torch.stack([at.expand(65), t], -1)):
            # pixel centres of the enlarged picture
            curve = ((first(points)[0] * ends + 0.5) * zoom).tolist()
            places = [tuple(p) for p in curve]
            pen.line(places, fill=(0, 0, 0), width=3)
            pen.line(places, fill=(255, 255, 0), width=1)
    return np.asarray(image, dtype=np.uint8)


def canonical_picture(picture: Picture, warp: Warp) -> Picture:
    """S^-1 of a picture (H, W, 3) by the first warp."""
    x = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float()
    out = unscale(x, warp[0].to("cpu"))[0].round().clamp(0, 255).byte()
    return out.permute(1, 2, 0).numpy()
