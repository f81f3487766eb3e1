"""The folder that mmsegmentation reads: img_dir, ann_dir, the classes and a description."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lse_core.atomic import staging
from lse_data.files import check_folder, move_in
from lse_data.glyphs import load_glyphs
from lse_data.objects.scene import SPLITS, draw, scene
from lse_data.objects.settings import ObjectsConfig, class_names, palette

__all__ = ["CLASSES", "DESCRIPTION", "count_images", "file_name", "generate", "write_objects"]

DESCRIPTION = "objects.json"
"""File that says how the objects of a folder were made."""
CLASSES = "classes.txt"
"""File with the name of one class on each line."""
VERSION = 1
"""Raised whenever the same settings begin to mean other bytes or another file layout."""

Picture = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]  # name, picture, labels


def write_objects(
    config: ObjectsConfig,
    folder: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write `img_dir/SPLIT/NAME.png`, `ann_dir/SPLIT/NAME.png`, `classes.txt` and `objects.json`.

    Masks are PNG files with a palette whose indices are the labels. Everything is written to a hidden
    folder beside the target and moved there at the end, the description last: a folder without it is
    unfinished.

    Args:
        config: what to draw.
        folder: where; made if absent.
        force: allow a folder that is not empty; an earlier data set in it is replaced.
        progress: called with the number of images just written.

    Returns:
        The description, as in `objects.json`.

    Raises:
        OutputError: the folder is not empty and `force` is off, or it cannot be written.
        DataError: the glyphs or photographs cannot be loaded.
    """
    folder = Path(folder)
    check_folder(folder, force)
    description = _describe(config)
    with staging(folder.resolve()) as partial:
        colours = [channel for colour in description["palette"] for channel in colour]
        for split in SPLITS:
            for kind in ("img_dir", "ann_dir"):
                (partial / kind / split).mkdir(parents=True)
            for name, picture, labels in generate(config, split):
                Image.fromarray(picture).save(partial / "img_dir" / split / f"{name}.png")
                mask = Image.fromarray(labels)
                mask.putpalette(colours)
                mask.save(partial / "ann_dir" / split / f"{name}.png")
                if progress is not None:
                    progress(1)
        (partial / CLASSES).write_text("\n".join(description["classes"]) + "\n", encoding="utf-8")
        (partial / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        move_in(partial, folder, DESCRIPTION)
    return description


def generate(config: ObjectsConfig, split: str, start: int = 0) -> Iterator[Picture]:
    """Draw a split's images in order, from scene `start` on: name, picture (R, R, 3), labels (R, R)."""
    glyphs = load_glyphs(config.source, split)
    for number in range(start, getattr(config, split)):
        what = scene(config, split, number, glyphs)
        for version, factors in enumerate(what.factors):
            factor = None if what.resized is None else factors[what.resized]
            yield file_name(number, what.resized, factor), *draw(what, config, version)


def file_name(number: int, resized: int | None = None, factor: float | None = None) -> str:
    """`000012`, or for test images `000012_object0_scale_0.7`: base image, object resized, its factor."""
    return f"{number:06d}" if factor is None else f"{number:06d}_object{resized}_scale_{factor:g}"


def count_images(config: ObjectsConfig) -> dict[str, int]:
    """How many images each split has."""
    return {"train": config.train, "val": config.val, "test": config.test * len(config.test_factors)}


def _describe(config: ObjectsConfig) -> dict[str, Any]:
    classes = class_names(config.families)
    return {
        "format": "lse-objects",
        "version": VERSION,
        "config": config.plain(),
        "images": count_images(config),
        "classes": list(classes),
        "palette": palette(len(classes)),
    }
