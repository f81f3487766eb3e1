"""A picture of samples with their masks over them, for people."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lse_core.errors import OutputError
from lse_core.pictures import overlay
from lse_train.data.objects.settings import ObjectsConfig, class_names, palette
from lse_train.data.objects.write import count_images, generate

__all__ = ["preview"]

COLUMNS, GAP, GREY = 6, 4, (56, 56, 56)


def preview(config: ObjectsConfig, path: Path, rows: int = 2) -> None:
    """Write a PNG: training images with their masks below, then test scenes at all their factors.

    Args:
        config: what `write_objects` would draw.
        path: of the PNG.
        rows: of training images, and of test scenes.

    Raises:
        OutputError: the file cannot be written.
    """
    counts = count_images(config)
    names = class_names(config.families)
    factors = len(config.test_factors) if counts["test"] else 0
    columns = factors or COLUMNS
    sections = [
        (list(islice(generate(config, "train"), rows * columns)), columns),
        (list(islice(generate(config, "test"), rows * factors)), factors),
    ]
    colours = np.array(palette(len(names)), dtype=np.uint8)
    font: Any = ImageFont.load_default(max(10, config.size // 11))
    line = max(10, config.size // 11) + 6
    cell, tall = config.size + GAP, 2 * (config.size + GAP) + line
    bands = [
        pictures[i : i + width] for pictures, width in sections for i in range(0, len(pictures), width or 1)
    ]
    canvas = Image.new("RGB", (columns * cell + GAP, max(1, len(bands)) * tall + GAP), GREY)
    pen = ImageDraw.Draw(canvas)
    for row, band in enumerate(bands):
        for column, (name, picture, labels) in enumerate(band):
            x, y = GAP + column * cell, GAP + row * tall
            canvas.paste(Image.fromarray(picture), (x, y))
            canvas.paste(Image.fromarray(overlay(picture, labels, colours)), (x, y + config.size + GAP))
            scale = name.partition("_scale_")[2]
            seen = " + ".join(names[i] for i in np.unique(labels) if i)
            text = f"x {scale}: {seen}" if scale else seen
            pen.text((x, y + 2 * cell - 2), text, fill=(255, 255, 255), font=font)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path, format="PNG")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
