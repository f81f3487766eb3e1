"""Pictures of a data set for people: a grid of its images, with or without their numbers below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lse_core.errors import DataError
from lse_train.data.dataset import DigitsDataset
from lse_train.data.folder import ImageFolder

__all__ = ["captioned_preview", "folder_preview", "preview"]

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
    shown = range(start, min(start + rows * cols, len(dataset)))
    captions = []
    for i in shown:
        factors = " ".join(f"{factor:.1f}" for factor in dataset.scales[i].tolist())
        captions.append((f"{int(dataset.labels[i]):03d}", f"x {factors}"))
    r = dataset.config.resolution
    grid = preview(dataset, rows, cols, start=start, gap=gap, caption=_caption_height(r))
    return _written(Image.fromarray(grid), captions, cols, r, gap)


def folder_preview(
    dataset: ImageFolder, rows: int, cols: int, *, start: int = 0, gap: int = 2, labels: bool = True
) -> NDArray[np.uint8]:
    """Lay pictures of a folder out in a grid, with class and factor written below every one.

    Args:
        dataset: where the pictures come from; cells beyond its end stay grey.
        rows: rows of the grid, at least 1.
        cols: columns of the grid, at least 1.
        start: first picture shown.
        gap: grey pixels around every picture.
        labels: write class and factor.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: a grid without cells, or a start outside the data set.
    """
    if rows < 1 or cols < 1:
        raise DataError(f"a grid needs at least 1 row and 1 column, not {rows} x {cols}")
    if not 0 <= start < len(dataset):
        raise DataError(f"start must lie in 0..{len(dataset) - 1}, not {start}")
    r = max(dataset.preprocess.size or (224,))
    caption = _caption_height(r) if labels else 0
    size = (cols * (r + gap) + gap, rows * (r + caption + gap) + gap)
    grid = Image.new("RGB", size, (BACKGROUND,) * 3)
    shown = range(start, min(start + rows * cols, len(dataset)))
    for cell, i in enumerate(shown):
        place = (gap + cell % cols * (r + gap), gap + cell // cols * (r + caption + gap))
        grid.paste(Image.fromarray(dataset.uint8(i)), place)
    if not labels:
        return np.asarray(grid, dtype=np.uint8)
    pictures = [dataset.pictures[i] for i in shown]
    captions = [(dataset.classes[p.label], f"x {p.factor:g}") for p in pictures]
    return _written(grid, captions, cols, r, gap)


def _caption_height(resolution: int) -> int:
    return 2 * (_font_size(resolution) + 3)


def _font_size(resolution: int) -> int:
    return max(9, resolution // 9)


def _written(
    grid: Image.Image, captions: Sequence[tuple[str, str]], cols: int, resolution: int, gap: int
) -> NDArray[np.uint8]:
    """Write two lines below every cell."""
    size, caption = _font_size(resolution), _caption_height(resolution)
    font: Any = ImageFont.load_default(size)
    ink = 255 if grid.mode == "L" else (255, 255, 255)
    pen = ImageDraw.Draw(grid)
    for cell, lines in enumerate(captions):
        left = gap + cell % cols * (resolution + gap)
        top = gap + cell // cols * (resolution + caption + gap) + resolution
        for row, text in enumerate(lines):
            place = (left + resolution / 2, top + 2 + row * (size + 2))
            pen.text(place, text, fill=ink, font=font, anchor="ma")
    return np.asarray(grid, dtype=np.uint8)
