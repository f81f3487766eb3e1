"""Where objects lie in pictures: mask files, boxes in XML files, or annotations in COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from lse_core.errors import DataError, LSEError

__all__ = ["Mark", "Marks", "find_marks", "read_mask"]

BESIDE = ("{}.mask.png", "{}.xml")
"""Files that tell of the picture NAME.jpg beside it, {} being NAME."""

FOR_ALL = "boxes.json"
"""File of COCO's format that tells of all pictures beside it."""

XML_BYTES = 1_000_000  # files of boxes have a few thousand


@dataclass(frozen=True)
class Mark:
    """Where one object lies: a mask, or a box in which it is to be found.

    Attributes:
        mask: (H, W) bool, of the picture's size; None where there is a box alone.
        box: left, top, right and bottom in pixels; None where there is a mask.
        name: what the object is called.
        size: (width, height) of the picture that the mark was made for; None where it is not told.
    """

    mask: NDArray[np.bool_] | None = None
    box: tuple[float, float, float, float] | None = None
    name: str | None = None
    size: tuple[int, int] | None = None

    def fitted(self, file: tuple[int, int], now: tuple[int, int]) -> Mark:
        """The same mark for the picture after it was reduced.

        Args:
            file: (width, height) of the picture in its file, which marks are made for.
            now: (width, height) of the picture as it is used.

        Raises:
            DataError: the mark is made for a picture of another size.
        """
        if self.size not in (None, file, now):
            assert self.size is not None
            raise DataError(
                f"its {'mask' if self.box is None else 'box'} is made for a picture of {self.size[0]} x "
                f"{self.size[1]} pixels, and this one has {file[0]} x {file[1]}"
            )
        before = self.size or file
        if before == now:
            return self
        x, y = now[0] / before[0], now[1] / before[1]
        mask, box = self.mask, self.box
        if mask is not None and mask.shape != (now[1], now[0]):
            import cv2

            mask = cv2.resize(mask.astype(np.float32), now, interpolation=cv2.INTER_AREA) > 0.5
        if box is not None:
            box = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
        return Mark(mask, box, self.name, now)


class Marks:
    """Marks of pictures, given the picture's file and its name relative to the folder that was given.

    Args:
        candidates: the files that could tell of a picture; the first that exists is read.
        shared: marks by picture from one file, in the place of `candidates`.
        source: that file.
    """

    def __init__(
        self,
        candidates: Callable[[Path, str], Sequence[Path]] | None = None,
        shared: Callable[[Path, str], Sequence[Mark]] | None = None,
        source: Path | None = None,
    ) -> None:
        self._candidates, self._shared, self.source = candidates, shared, source

    def file(self, picture: Path, name: str) -> Path | None:
        """The file that tells of a picture, if there is one."""
        if self._candidates is None:
            return self.source
        return next((file for file in self._candidates(picture, name) if file.is_file()), None)

    def __call__(self, picture: Path, name: str) -> Sequence[Mark]:
        """The marks of a picture; DataError for a file that cannot be read."""
        if self._shared is not None:
            return self._shared(picture, name)
        file = self.file(picture, name)
        if file is None:
            return ()
        if file.suffix == ".json":
            return _coco(file, file.stat().st_mtime_ns)(picture, name)
        return _voc(file) if file.suffix == ".xml" else read_mask(file)


def find_marks(where: Literal["beside", "none"] | Path | str) -> Marks:
    """Where to look for the objects in pictures.

    Args:
        where: "beside" looks for NAME.mask.png, NAME.xml and boxes.json beside the picture NAME.jpg. "none":
            nowhere. A JSON file of COCO's format has the objects of all pictures, by file name; boxes.json is
            such a file. A folder has, at the
            place of each picture in its own folder or at the top, NAME.mask.png, NAME.png or NAME.xml. XML
            files are as Pascal VOC and ImageNet have them; for masks see `read_mask`.

    Raises:
        DataError: no such file or folder, or no JSON of COCO's format.
    """
    if where == "none":
        return Marks(lambda file, name: ())
    if where == "beside":
        forms = (*BESIDE, FOR_ALL)
        return Marks(lambda file, name: [file.parent / form.format(file.stem) for form in forms])
    folder = Path(where)
    if folder.is_dir():

        def inside(file: Path, name: str) -> list[Path]:
            forms = (*BESIDE, "{}.png")
            own = Path(name).parent
            places = (folder,) if own.is_absolute() else (folder / own, folder)
            found = (place / form.format(file.stem) for place in places for form in forms)
            return [other for other in found if other.resolve() != file.resolve()]

        return Marks(inside)
    if not folder.is_file():
        raise DataError(f"{folder}: no such folder of masks, and no such JSON file of COCO's format")
    return Marks(shared=_coco(folder, folder.stat().st_mtime_ns), source=folder)


def read_mask(file: Path) -> Sequence[Mark]:
    """The objects in a mask file.

    A palette picture, or a grey one whose values are all below 128, numbers its objects: each value but 0 is
    one (255, which VOC has at edges, is none). In any other, what is brighter than half is one object.

    Raises:
        DataError: it cannot be read as a picture.
    """
    from PIL import Image

    try:
        with Image.open(file) as picture:
            numbered = picture.mode == "P"
            values = np.asarray(picture if numbered else picture.convert("L"))
    except Exception as error:  # damaged files raise whatever the decoder stumbles over
        raise DataError(f"{file} cannot be read as a mask: {' '.join(str(error).split())[:200]}") from error
    size = (values.shape[1], values.shape[0])
    if numbered or values.max(initial=0) < 128:
        numbers = [number for number in np.unique(values).tolist() if number not in (0, 255)]
        found = [Mark(mask=values == number, name=None, size=size) for number in numbers]
        return found or [Mark(mask=np.zeros(values.shape, dtype=bool), size=size)]
    return [Mark(mask=values >= 128, size=size)]


def _voc(file: Path) -> Sequence[Mark]:
    """Boxes of Pascal VOC and ImageNet, whose pixels are counted from 1, both corners included."""
    try:
        data = file.read_bytes()
        if len(data) > XML_BYTES or b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise DataError(f"{file} is no file of boxes: it is too large, or defines entities")
        root = ElementTree.fromstring(data)  # noqa: S314 - no entities, and of limited size
        side = [root.findtext(f"size/{name}") for name in ("width", "height")]
        size = (int(side[0]), int(side[1])) if side[0] and side[1] and int(side[0]) > 0 else None
        marks = []
        for thing in root.iter("object"):
            left, top, right, bottom = (
                float(thing.findtext(f"bndbox/{name}") or "") for name in ("xmin", "ymin", "xmax", "ymax")
            )
            box = (left - 1, top - 1, right, bottom)
            marks.append(Mark(box=box, name=thing.findtext("name"), size=size))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        if isinstance(error, LSEError):
            raise
        raise DataError(f"{file} cannot be read as boxes of VOC or ImageNet: {error}") from error
    return marks


@lru_cache(maxsize=4)
def _coco(file: Path, changed: int) -> Callable[[Path, str], Sequence[Mark]]:
    """The marks in a file; it is read again where the time of its last change is another."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        names = {entry["id"]: str(entry["name"]) for entry in values.get("categories", ())}
        images = {entry["id"]: entry for entry in values["images"]}
        by_name: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
        for entry in images.values():
            by_name.setdefault(str(entry["file_name"]), [])
        for entry in values["annotations"]:
            image = images[entry["image_id"]]
            if not entry.get("iscrowd"):
                by_name[str(image["file_name"])].append((entry, image))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{file} cannot be read as annotations of COCO: {type(error).__name__} {error}"
        ) from error

    def marks(picture: Path, name: str) -> Sequence[Mark]:
        entries = by_name.get(name) or by_name.get(picture.name) or ()
        try:
            return [_annotation(entry, image, names) for entry, image in entries]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(f"{file}: an annotation of {name} is damaged: {error}") from error

    return marks


def _annotation(entry: Mapping[str, Any], image: Mapping[str, Any], names: Mapping[Any, str]) -> Mark:
    size = (int(image["width"]), int(image["height"]))
    name, shape = names.get(entry.get("category_id")), entry.get("segmentation")
    if isinstance(shape, list) and shape:
        return Mark(mask=_polygons(shape, size), name=name, size=size)
    if isinstance(shape, dict) and isinstance(shape.get("counts"), list):
        return Mark(mask=_runs(shape["counts"], size), name=name, size=size)
    left, top, width, height = (float(side) for side in entry["bbox"])  # compressed runs have a box too
    return Mark(box=(left, top, left + width, top + height), name=name, size=size)


def _polygons(shapes: Sequence[Sequence[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    import cv2

    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    # COCO's corners lie between pixels, OpenCV's at their centres
    points = [np.rint(np.asarray(s, dtype=np.float64).reshape(-1, 2) - 0.5).astype(np.int32) for s in shapes]
    cv2.fillPoly(mask, points, (1,))
    return mask.astype(bool)


def _runs(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Lengths of runs of 0 and 1 in turns, down the columns."""
    if sum(counts) != size[0] * size[1] or min(counts, default=0) < 0:
        raise ValueError("the runs of its mask do not add up to the picture's pixels")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    mask: NDArray[np.bool_] = values.reshape(size[0], size[1]).T
    return np.ascontiguousarray(mask)
