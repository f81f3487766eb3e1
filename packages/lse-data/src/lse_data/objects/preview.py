"""A picture of samples with their masks below them, for people."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from lse_core.atomic import replacing
from lse_core.pictures import overlay
from lse_data.objects.settings import ObjectsConfig, class_names, palette
from lse_data.objects.write import count_images, generate
from lse_data.preview import grid

__all__ = ["preview"]


def preview(config: ObjectsConfig, path: Path, rows: int = 2) -> None:
    """Write a PNG: training images with their masks below, then test scenes at all their factors.

    Args:
        config: what `write_objects` would draw.
        path: of the PNG.
        rows: of training images, and of test scenes.

    Raises:
        OutputError: the file cannot be written.
    """
    names, colours = (
        class_names(config.families),
        np.array(palette(len(class_names(config.families))), dtype=np.uint8),
    )
    factors = len(config.test_factors) if count_images(config)["test"] else 0
    columns = factors or 6
    cells, captions = [], []
    for split, count in (("train", rows * columns), ("test", rows * factors)):
        for name, picture, labels in islice(generate(config, split), count):
            cells.append(np.concatenate([picture, overlay(picture, labels, colours)]))
            scale = name.partition("_scale_")[2]
            seen = " + ".join(names[i] for i in np.unique(labels) if i)
            captions.append([f"x {scale}: {seen}" if scale else seen])
        missing = -len(cells) % columns  # each split begins a row
        cells += [np.full_like(cells[0], 96)] * missing if cells else []
        captions += [[""]] * missing if cells else []
    drawn = grid(cells, len(cells) // columns, columns, captions, gap=4, font=max(10, config.size // 11))
    with replacing(path, overwrite=True) as partial:
        Image.fromarray(drawn).save(partial, format="PNG")
