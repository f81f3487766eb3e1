"""The stages before the compositor, each a plugin of its kind: where objects are, masks, background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lse_core.plugins import registry
from lse_core.settings import build, takes
from lse_data.masks import Mark, find_marks
from lse_data.scaling.config import ScalingConfig

__all__ = [
    "Box", "Boxes", "Detector", "Files", "GrabCut", "Inpainter", "Mask", "OpenCVInpainter", "Picture",
    "Segmenter", "Shot", "Stages", "build_stages",
]  # fmt: skip

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shot:
    """One photograph, as a detector sees it.

    Attributes:
        picture: (H, W, 3) RGB, upright, reduced to the size at which it is used.
        file: where it comes from.
        name: its path relative to the folder that was given.
        size: (width, height) in the file, upright.
        label: the folder that it lies in, which names its class; "" where there is none.
    """

    picture: Picture
    file: Path
    name: str
    size: tuple[int, int]
    label: str = ""


class Detector(Protocol):
    """Says where objects are.

    Marks have a box or a mask, in pixels of the file, or of `shot.picture` where `Mark.size` says so. A
    detector that reads files has a method `sources(file, name)`, which returns their paths, so that a
    picture is made again when they change.
    """

    def __call__(self, shot: Shot) -> Sequence[Mark]:
        """The objects in a photograph, none where it finds none."""


class Segmenter(Protocol):
    """Finds the object in each box."""

    def __call__(self, picture: Picture, boxes: Sequence[Box]) -> Sequence[Mask]:
        """A mask (H, W) for each box (left, top, right, bottom in pixels) of a picture (H, W, 3)."""


class Inpainter(Protocol):
    """Fills in a hole. What it does outside of the hole does not count."""

    def __call__(self, picture: Picture, hole: Mask) -> Picture:
        """A picture (H, W, 3) without what the hole (H, W) covers."""


@dataclass(frozen=True)
class Stages:
    """The three plugins, with their settings."""

    detector: Detector
    segmenter: Segmenter
    inpainter: Inpainter

    def versions(self) -> dict[str, str]:
        """What the plugins say of their own versions, "inpainter.model" for instance, see CONTRIBUTING.md."""
        return {
            f"{kind}.{name}": value
            for kind, stage in vars(self).items()
            for name, value in (stage.versions() if hasattr(stage, "versions") else {}).items()
        }


class Files:
    """Boxes and masks from files, see `lse_data.masks.find_marks`.

    Args:
        where: "beside", a folder, or a JSON file of COCO's format.
    """

    def __init__(self, where: str = "beside") -> None:
        self.marks = find_marks(where)

    def __call__(self, shot: Shot) -> Sequence[Mark]:
        """What the files say."""
        return self.marks(shot.file, shot.name)

    def sources(self, file: Path, name: str) -> list[Path]:
        """The file that tells of a picture."""
        found = self.marks.file(file, name)
        return [] if found is None else [found]


class Boxes:
    """The same boxes in every photograph.

    Args:
        boxes: left, top, right and bottom of each in pixels, one after the other.
        name: what the objects are called.
    """

    def __init__(self, boxes: tuple[float, ...], name: str | None = None) -> None:
        edges = iter(boxes)
        self.marks = [Mark(box=box, name=name) for box in zip(edges, edges, edges, edges, strict=True)]

    def __call__(self, shot: Shot) -> Sequence[Mark]:
        """The boxes."""
        return self.marks


class GrabCut:
    """OpenCV's GrabCut, see `lse_data.compositing.mask_in_box`."""

    def __call__(self, picture: Picture, boxes: Sequence[Box]) -> Sequence[Mask]:
        """Each box is looked at alone."""
        from lse_data.compositing import mask_in_box

        return [mask_in_box(picture, box) for box in boxes]


class OpenCVInpainter:
    """OpenCV's inpainting, which continues what is around the hole smoothly.

    Args:
        method: "telea" (Telea 2004) or "ns" (Bertalmio, Bertozzi and Sapiro 2001).
        reach: pixels from which a pixel is filled in.
    """

    def __init__(self, method: str = "telea", reach: int = 5) -> None:
        from lse_core.errors import unknown_name

        if method not in ("telea", "ns"):
            raise unknown_name("method of OpenCV's inpainting", method, ("telea", "ns"))
        self.method, self.reach = method, reach

    def __call__(self, picture: Picture, hole: Mask) -> Picture:
        """Fill in."""
        import cv2

        from lse_data.compositing import filled_in

        method = cv2.INPAINT_TELEA if self.method == "telea" else cv2.INPAINT_NS
        return filled_in(picture, hole, reach=self.reach, method=method)


def build_stages(config: ScalingConfig, *, trust: bool = False, device: str = "cpu") -> Stages:
    """Make the plugins that `config` names.

    Args:
        config: the settings.
        trust: allow plugins to fetch what they are told by name.
        device: where plugins run that use torch.

    Raises:
        UnknownNameError: no installed plugin has a name, or takes a setting.
        LSEError: a plugin cannot be made.
    """

    def stage(kind: str) -> Any:
        factory = registry().get(kind, getattr(config, kind))
        given = {"trust": trust, "device": device}
        more = {name: value for name, value in given.items() if takes(factory, name)}
        return build(factory, **{**config.options.get(kind, {}), **more})

    return Stages(stage("detector"), stage("segmenter"), stage("inpainter"))
