"""Labels of pictures: a folder for each class, a CSV file, or label maps for segmentors."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lse_core.errors import DataError
from lse_core.preprocess import Preprocess

__all__ = ["read_label_map", "read_labels"]

SYNSET = re.compile(r"n\d{8}")


def read_labels(
    source: str | Path, names: Sequence[str], classes: int, class_names: Sequence[str] | None
) -> dict[str, int]:
    """The class of each picture, as an index of the model's outputs.

    Args:
        source: "folders": the first folder in a picture's name is its class. Else a CSV file with the columns
            `file` and `label`.
        names: of the pictures, relative to the folder that was given.
        classes: number of the model's outputs.
        class_names: what the model calls them.

    Returns:
        By the name of the picture; pictures that have no label are left out. A label is a class name of the
        model, a number, or a synset of ImageNet ("n07920052") for a model of its 1000 classes. Where none of
        this fits, the labels in alphabetical order are the classes in order, if there are as many.

    Raises:
        DataError: a label that the model does not have, another number of labels than classes, or no such
            file.
    """
    if source == "folders":
        told = {name: Path(name).parts[0] for name in names if len(Path(name).parts) > 1}
        where = "the folders of the pictures"
        if not told:
            raise DataError(
                "no picture lies in a folder of its class: give the folder that holds a folder for each class"
            )
    else:
        by_file, where = _csv(Path(source)), str(source)
        told = {}
        for name in names:
            label = by_file.get(name, by_file.get(Path(name).name))
            if label is not None:
                told[name] = label
        if not told:
            raise DataError(
                f"{source} has no label for any of the {len(names)} pictures: see its column file"
            )
    index = _index(sorted(set(told.values())), classes, class_names, where)
    return {name: index(label) for name, label in told.items()}


def _csv(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"file", "label"} <= set(rows.fieldnames or ()):
                raise DataError(f"{path} needs a first line that names the columns file and label")
            return {row["file"]: row["label"].strip() for row in rows if row["file"] and row["label"]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file of labels: {error}") from error


def _index(
    labels: Sequence[str], classes: int, class_names: Sequence[str] | None, where: str
) -> Callable[[str], int]:
    known = {_plain(name): index for index, name in reversed(list(enumerate(class_names or ())))}
    if all(_plain(label) in known for label in labels):
        return lambda label: known[_plain(label)]
    if all(label.isdecimal() for label in labels):
        largest = max(int(label) for label in labels)
        if largest >= classes:
            raise DataError(
                f"{where} have labels up to {largest}, but the model tells {classes} classes apart "
                f"(0 to {classes - 1}): these labels belong to another model"
            )
        return int
    synsets = _synsets() if classes == 1000 and all(SYNSET.fullmatch(label) for label in labels) else {}
    if synsets and all(label in synsets for label in labels):
        return synsets.__getitem__
    if len(labels) == classes and not any(_plain(label) in known for label in labels):
        return {label: index for index, label in enumerate(labels)}.__getitem__
    unknown = next(label for label in labels if _plain(label) not in known)
    raise DataError(
        f"{where} have {len(labels)} labels, but the model tells {classes} classes apart, and "
        f"none of them is called {unknown!r}: use the model's class names, their numbers, or --class-names"
    )


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _synsets() -> dict[str, int]:
    try:
        from timm.data import ImageNetInfo
    except ImportError:
        return {}
    return {name: index for index, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def read_label_map(
    folder: Path,
    name: str,
    size: tuple[int, int],
    preprocess: Preprocess,
    shape: tuple[int, int],
    classes: int,
) -> Tensor:
    """The label map of a picture, laid out as the prepared picture is.

    Args:
        folder: has for the picture "a/b.jpg" the file "a/b.png" or "b.png": class numbers, 255 for none.
        name: of the picture.
        size: its (width, height).
        preprocess: how it is prepared.
        shape: (height, width) that a model that takes any size gets.
        classes: number of classes.

    Returns:
        (h, w) int64, -1 where there is no label.

    Raises:
        DataError: no such file, one that cannot be read, of another size, or with other classes.
    """
    from PIL import Image

    candidates = [(folder / name).with_suffix(".png"), folder / f"{Path(name).stem}.png"]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise DataError(f"{name} has no label map: there is no {candidates[0]}")
    try:
        with Image.open(file) as picture:
            told = picture if picture.mode in ("P", "L") else picture.convert("I")
            between = preprocess.resized((size[1], size[0])) if preprocess.size is not None else shape
            top, left = preprocess.crop(between)
            h, w = preprocess.size or shape
            own = told.size
            resized = told.resize((between[1], between[0]), Image.Resampling.NEAREST)
            values = np.array(resized.crop((left, top, left + w, top + h))).astype(np.int64)
    except Exception as error:  # damaged files raise whatever the decoder stumbles over
        raise DataError(
            f"{file} cannot be read as a label map: {' '.join(str(error).split())[:200]}"
        ) from error
    if own != size:
        raise DataError(
            f"{file} has {own[0]} x {own[1]} pixels, and its picture {name} has {size[0]} x {size[1]}"
        )
    values[values == 255] = -1
    if values.max(initial=0) >= classes:
        raise DataError(f"{file} has class {values.max()}, but the model tells {classes} classes apart")
    return torch.from_numpy(values)
