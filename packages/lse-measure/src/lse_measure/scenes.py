"""Pictures to be measured, with the objects in them cut out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lse_core.errors import DataError, LSEError
from lse_core.pictures import read_picture
from lse_data.items import Item
from lse_data.masks import Mark

if TYPE_CHECKING:
    from PIL import Image

    from lse_data.compositing import Cutout

__all__ = ["Scene", "open_scene"]

SHORTER = 640  # pixels; larger pictures are reduced to this before their objects are cut out


@dataclass
class Scene:
    """One picture that was read.

    Attributes:
        picture: RGB, whole.
        small: (H, W, 3), the picture with a shorter side of at most 640 pixels, from which objects are cut.
        objects: number, name and cutout of each object.
        counts: "without_objects", "bad_masks" and "bad_boxes", as in `Counts`.
        problems: a sentence for each mask or box that was left out.
    """

    picture: Image.Image
    small: NDArray[np.uint8]
    objects: list[tuple[int, str | None, Cutout]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def open_scene(item: Item, marks: Callable[[Path, str], Sequence[Mark]] | None) -> Scene:
    """Read a picture, and cut out its objects where `marks` are asked for.

    Raises:
        PictureError: it cannot be read.
        LSEError: there are marks, but OpenCV is not installed.
    """
    picture = read_picture(item.file, 3)
    share = min(1.0, SHORTER / min(picture.size))
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    scene = Scene(picture, np.asarray(picture if size == picture.size else picture.resize(size)))
    if marks is None:
        return scene
    try:
        found = marks(item.file, item.name)
    except DataError as error:
        _left_out(scene, "bad_masks", str(error))
        return scene
    scene.counts["without_objects"] = int(not found)
    for number, mark in enumerate(found):
        try:
            scene.objects.append((number, mark.name, _cut(scene, mark)))
        except LSEError as error:
            kind = "bad_boxes" if mark.box is not None else "bad_masks"
            _left_out(scene, kind, f"{item.name}, object {number}: {error}")
    return scene


def _left_out(scene: Scene, kind: str, problem: str) -> None:
    scene.counts[kind] = scene.counts.get(kind, 0) + 1
    scene.problems.append(problem)


def _cut(scene: Scene, mark: Mark) -> Any:
    from lse_data.compositing import cut_out, mask_in_box

    height, width = scene.small.shape[:2]
    fitted = mark.fitted(scene.picture.size, (width, height))
    mask = fitted.mask if fitted.box is None else mask_in_box(scene.small, fitted.box)
    assert mask is not None
    return cut_out(scene.small, mask)
