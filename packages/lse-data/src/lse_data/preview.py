"""Pictures of a data set for people: a grid of its images, with what they show below each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lse_core.errors import DataError
from lse_data.dataset import DigitsDataset
from lse_data.folder import ImageFolder

__all__ = ["grid", "preview"]

BACKGROUND = 96  # grey, so that the borders of black canvases show


def grid(
    cells: Sequence[NDArray[np.uint8]],
    rows: int,
    cols: int,
    captions: Sequence[Sequence[str]] = (),
    *,
    gap: int = 2,
    font: int = 9,
) -> NDArray[np.uint8]:
    """Lay pictures out row by row; what is left of the grid stays grey.

    Args:
        cells: at least one, of equal shape (h, w) or (h, w, 3).
        rows: rows of the grid.
        cols: columns of the grid.
        captions: lines of text below each picture, equally many each.
        gap: grey pixels around every picture.
        font: height of the letters in pixels.

    Returns:
        uint8 (H, W) or (H, W, 3) with H = rows * (h + strip + gap) + gap and W = cols * (w + gap) + gap,
        the strip being as high as the captions.
    """
    h, w = cells[0].shape[:2]
    strip = len(captions[0]) * (font + 2) + 2 if captions else 0
    mode = "L" if cells[0].ndim == 2 else "RGB"
    colour = BACKGROUND if mode == "L" else (BACKGROUND,) * 3
    canvas = Image.new(mode, (cols * (w + gap) + gap, rows * (h + strip + gap) + gap), colour)
    pen, letters = ImageDraw.Draw(canvas), ImageFont.load_default(font) if captions else None
    for number, cell in enumerate(cells):
        left, top = gap + number % cols * (w + gap), gap + number // cols * (h + strip + gap)
        canvas.paste(Image.fromarray(cell), (left, top))
        for line, text in enumerate(captions[number] if captions else ()):
            place = (left + w / 2, top + h + 2 + line * (font + 2))
            pen.text(place, text, fill="white", font=letters, anchor="ma")
    return np.asarray(canvas, dtype=np.uint8)


def preview(
    dataset: DigitsDataset | ImageFolder,
    rows: int,
    cols: int,
    *,
    start: int = 0,
    gap: int = 2,
    labels: bool = True,
) -> NDArray[np.uint8]:
    """Lay the images `start`, `start + 1`, ... of a data set out in a grid.

    Args:
        dataset: where the images come from; cells beyond its end stay grey.
        rows: rows of the grid, at least 1.
        cols: columns of the grid, at least 1.
        start: first image shown.
        gap: grey pixels around every image.
        labels: write what an image shows and its factors below it.

    Returns:
        As `grid`: (H, W) for digits, (H, W, 3) for a folder.

    Raises:
        DataError: a grid without cells, or a start outside the data set.
    """
    if rows < 1 or cols < 1:
        raise DataError(f"a grid needs at least 1 row and 1 column, not {rows} x {cols}")
    if not 0 <= start < len(dataset):
        raise DataError(f"start must lie in 0..{len(dataset) - 1}, not {start}")
    cells: list[NDArray[np.uint8]] = []
    captions: list[tuple[str, str]] = []
    for i in range(start, min(start + rows * cols, len(dataset))):
        if isinstance(dataset, DigitsDataset):
            cells.append(dataset.images[i, 0].cpu().numpy())
            factors: Any = dataset.scales[i].tolist()
            captions.append((f"{int(dataset.labels[i]):03d}", "x " + " ".join(f"{f:.1f}" for f in factors)))
        else:
            found = dataset.pictures[i]
            cells.append(dataset.uint8(i))
            captions.append((dataset.classes[found.label], f"x {found.factor:g}"))
    font = max(9, max(cells[0].shape[:2]) // 9)
    return grid(cells, rows, cols, captions if labels else (), gap=gap, font=font)
