"""Pictures of a data set for people: a grid of its images, with or without their numbers below."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lse_dec.data.dataset import DigitsDataset
from lse_dec.data.errors import DataError

__all__ = ["captioned_preview", "preview"]

BACKGROUND = 96  # grey, so that the borders of the black canvases show


def preview(
    dataset: DigitsDataset, rows: int, cols: int, *, start: int = 0, gap: int = 2, caption: int = 0
) -> NDArray[np.uint8]:
    """Lay the images `start`, `start + 1`, ... out in a grid, row by row.

    Args:
        dataset: where the images come from; cells beyond its end stay grey.
        rows: rows of the grid, at least 1.
        cols: columns of the grid, at least 1.
        start: first image shown.
        gap: grey pixels around every image.
        caption: height of a grey strip below every image, for text.

    Returns:
        uint8 (H, W) with H = rows * (R + caption + gap) + gap and W = cols * (R + gap) + gap.

    Raises:
        DataError: a grid without cells, or a start outside the data set.
    """
    if rows < 1 or cols < 1 or gap < 0 or caption < 0:
        raise DataError(f"a grid needs at least 1 row and 1 column, not {rows} x {cols}")
    if not 0 <= start < len(dataset):
        raise DataError(f"start must lie in 0..{len(dataset) - 1}, not {start}")
    r = dataset.config.resolution
    images = dataset.images[start : start + rows * cols, 0].cpu().numpy()
    cells = np.full((rows * cols, gap + r + caption, gap + r), BACKGROUND, dtype=np.uint8)
    cells[: len(images), gap : gap + r, gap:] = images
    grid = cells.reshape(rows, cols, gap + r + caption, gap + r).transpose(0, 2, 1, 3)
    flat = grid.reshape(rows * (gap + r + caption), cols * (gap + r))
    return np.pad(flat, ((0, gap), (0, gap)), constant_values=BACKGROUND)


def captioned_preview(
    dataset: DigitsDataset, rows: int, cols: int, *, start: int = 0, gap: int = 2
) -> NDArray[np.uint8]:
    """Lay out a grid as `preview` does, with the number and the three factors written below every image.

    Returns:
        uint8 (H, W).
    """
    r = dataset.config.resolution
    size = max(9, r // 9)
    font: Any = ImageFont.load_default(size)
    caption = 2 * (size + 3)
    grid = Image.fromarray(preview(dataset, rows, cols, start=start, gap=gap, caption=caption))
    pen = ImageDraw.Draw(grid)
    for cell, i in enumerate(range(start, min(start + rows * cols, len(dataset)))):
        left = gap + cell % cols * (r + gap)
        top = gap + cell // cols * (r + caption + gap) + r
        factors = " ".join(f"{factor:.1f}" for factor in dataset.scales[i].tolist())
        lines = (f"{int(dataset.labels[i]):03d}", f"x {factors}")
        for row, text in enumerate(lines):
            pen.text((left + r / 2, top + 2 + row * (size + 2)), text, fill=255, font=font, anchor="ma")
    return np.asarray(grid, dtype=np.uint8)
