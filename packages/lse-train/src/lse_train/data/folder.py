"""Folders of pictures: one subfolder a class, as ImageNet is laid out, with or without local scales.

The authors name the versions of one picture by their factor,
`n01440764/ILSVRC2012_val_00000293_scale_0.7.JPEG`.
Files of one class that differ in nothing but the factor are one picture, S_I of Eq. 24.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lse_core.errors import DataError, LSEWarning, unknown_name
from lse_core.pictures import SUFFIXES, PictureError, read_picture
from lse_core.preprocess import Preprocess
from lse_core.settings import validated
from lse_train.data.config import MOST, whole

__all__ = [
    "FolderConfig",
    "ImageFolder",
    "Picture",
    "build_image_folder",
    "build_scaled_folder",
    "geometry",
    "open_folder",
    "readable",
]

OPTIONS = ("resolution", "channels", "crop", "crop_mode", "interpolation")
_SCALE = re.compile(r"^(?P<stem>.+)_scale_(?P<factor>\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class Picture:
    """One file.

    Attributes:
        path: where it is.
        label: position of its class among the classes.
        group: which picture it is a version of; consecutive from 0.
        factor: how much its object was resized, 1 where the name says nothing.
    """

    path: Path
    label: int
    group: int
    factor: float


@dataclass(frozen=True)
class FolderConfig:
    """How the pictures of a folder belong together.

    Attributes:
        variants: versions of each picture, which are neighbours; more than one are the set S_I of Eq. 24.
    """

    variants: int


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Pictures in class folders, read when asked for.

    Item i is (image, label): float32 (C, H, W) in [0, 1], prepared by `preprocess` but for mean and std,
    and an int. Pictures are sorted by class and group, the version at factor 1 before the others by factor,
    so equal folders give equal data sets.

    Attributes:
        pictures: what is where, in order.
        classes: names of the class folders, in the order of the labels.
        preprocess: how pictures are resized and cropped.
        skipped: files left out because they cannot be read.
        levels: the factors, ascending.
        config: see `FolderConfig`.

    Args:
        root: folder with a subfolder for each class.
        preprocess: how pictures are resized and cropped; None is 224 px, three channels, the middle square.
        scales: factors to keep; None keeps all. Every picture must have each of them.
        classes: names of the class folders in the order of the model's outputs; None sorts those found.
            A name without a folder is allowed (a subset of ImageNet), a folder without a name is not.
        limit: keep at most so many pictures of a class, the first by name, with all their versions.
        scaled: names must tell a factor; False takes them as they are and gives every file factor 1.
        skip_bad: read every picture once, now, and leave out those that cannot be read.
        options: what is to be otherwise than in `preprocess`, see `geometry`: resolution, channels, crop,
            crop_mode, interpolation.

    Raises:
        DataError: no such folder, no pictures, names without a factor, or versions that are missing.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        preprocess: Preprocess | None = None,
        scales: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        limit: int | None = None,
        scaled: bool = True,
        skip_bad: bool = False,
        **options: Any,
    ) -> None:
        self.root = folder_of(root)
        if limit is not None:
            whole("limit", limit, 1)
        if scales is not None and not _are(scales, int | float):
            raise DataError(f"scales must be numbers in a list; got {scales!r}")
        if classes is not None and not _are(classes, str):
            raise DataError(f"classes must be names of folders in a list; got {classes!r}")
        self.preprocess = geometry(preprocess, **options)
        self.classes = _classes(self.root, classes)
        keep = None if scales is None else tuple(float(s) for s in scales)
        found = [p for p in _pictures(self.root, self.classes, scaled, limit) if not keep or p.factor in keep]
        kept, self.skipped = readable([p.path for p in found], skip_bad)
        self.pictures = [p for p in found if p.path in set(kept)]
        self.levels = tuple(sorted({p.factor for p in self.pictures}))
        _check_versions(self.root, self.pictures, keep or self.levels)
        self.config = FolderConfig(max(1, len(self.levels)))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        picture = self.pictures[item]
        return torch.from_numpy(self._pixels(picture.path)).permute(2, 0, 1).float() / 255, picture.label

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""
        return torch.tensor([p.label for p in self.pictures])

    @property
    def groups(self) -> Tensor:
        """int64 (N,), consecutive from 0: the picture that each file is a version of."""
        return torch.tensor([p.group for p in self.pictures])

    @property
    def scales(self) -> Tensor:
        """float32 (N,), the factors."""
        return torch.tensor([p.factor for p in self.pictures])

    def uint8(self, item: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Pixels of one picture, (R, R, 3)."""
        return self._pixels(self.pictures[item].path)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Go once over the data in order: float32 (b, 3, R, R) in [0, 1] and int64 (b,)."""
        for start in range(0, len(self), batch_size):
            items = [self[i] for i in range(start, min(start + batch_size, len(self)))]
            yield torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])

    def _pixels(self, path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return self.preprocess.pixels(read_picture(path, self.preprocess.channels))


def folder_of(root: str | os.PathLike[str]) -> Path:
    """The folder that `root` names, ~ standing for the user's own; a DataError for what names none."""
    try:
        return Path(root).expanduser()
    except (TypeError, RuntimeError) as error:
        raise DataError(f"root must name a folder; got {root!r}: {error}") from error


def _are(values: object, kind: Any) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, kind) for value in values)


def geometry(preprocess: Preprocess | None = None, **options: Any) -> Preprocess:
    """How the pictures of a folder are resized and cropped; mean and std play no part here.

    Args:
        preprocess: what holds where the options say nothing; None: 224 px, three channels, the middle square,
            bicubic.
        options: "resolution" in pixels, one number or (height, width), at least 8; "channels", 1 or 3;
            "crop", the share of the resized side that is kept, as timm's crop_pct; "crop_mode" and
            "interpolation" as `Preprocess` has them.

    Raises:
        UnknownNameError: an option that does not exist.
        DataError: one that is out of range.
    """
    values = {"channels": 3, "size": (224, 224)} if preprocess is None else preprocess.plain()
    names = {"resolution": "size", "crop": "crop_pct"}
    for name, value in options.items():
        if name not in OPTIONS:
            raise unknown_name("setting of a folder of pictures", name, OPTIONS)
        if name == "resolution" and not isinstance(value, list | tuple):
            value = (value, value)
        values[names.get(name, name)] = value
    channels = values["channels"]
    if channels not in (1, 3):
        raise DataError(f"channels must be 1 or 3; got {channels!r}")
    try:
        made = validated(Preprocess, {**values, "mean": (0.0,) * channels, "std": (1.0,) * channels})
    except ValueError as error:
        raise DataError(f"preparing pictures: {error}") from error
    if made.size is None:
        raise DataError("the model takes pictures of any size: give resolution")
    if max(made.size) > MOST["resolution"]:
        raise DataError(f"resolution must be at most {MOST['resolution']} pixels a side; got {made.size}")
    if min(made.size) < 8:
        raise DataError(f"resolution must be at least 8 pixels a side; got {made.size}")
    return made


def readable(paths: Sequence[Path], skip_bad: bool) -> tuple[list[Path], tuple[Path, ...]]:
    """The files that are pictures, and those left out; with `skip_bad` off, all of them unread.

    Warns with the number of files left out and the reason of the first.
    """
    if not skip_bad:
        return list(paths), ()
    kept, skipped, first = [], [], ""
    for path in paths:
        try:
            read_picture(path)
            kept.append(path)
        except PictureError as error:
            skipped.append(path)
            first = first or str(error)
    if skipped:
        warnings.warn(f"left out {len(skipped)} of {len(paths)} pictures; {first}", LSEWarning, stacklevel=3)
    return kept, tuple(skipped)


def build_scaled_folder(
    root: str = "", *, preprocess: Preprocess | None = None, **settings: Any
) -> ImageFolder:
    """The data set "scaled_folder": an `ImageFolder` whose names tell factors, `root` being required."""
    return _build(root, preprocess, settings, scaled=True)


def build_image_folder(
    root: str = "", *, preprocess: Preprocess | None = None, **settings: Any
) -> ImageFolder:
    """The data set "image_folder": an `ImageFolder` of unchanged pictures, `root` being required."""
    return _build(root, preprocess, settings, scaled=False)


def open_folder(root: str | os.PathLike[str], **settings: Any) -> ImageFolder:
    """An `ImageFolder` with factors if the first picture's name tells one, else without."""
    folder = folder_of(root)
    first = _pictures(folder, _classes(folder, None), False, 1)[0]
    return ImageFolder(folder, scaled=_SCALE.match(first.path.stem) is not None, **settings)


def _build(
    root: str, preprocess: Preprocess | None, settings: dict[str, Any], *, scaled: bool
) -> ImageFolder:
    if not root:
        raise DataError("root is missing: say which folder holds the pictures")
    return ImageFolder(root, preprocess=preprocess, scaled=scaled, **settings)


def _classes(root: Path, names: Sequence[str] | None) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the one with a subfolder for each class")
    found = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise DataError(f"{root} has no subfolders; pictures belong in one subfolder for each class")
    if names is None:
        return tuple(found)
    foreign = sorted(set(found) - set(names))
    if foreign:
        raise DataError(f"{root} has a folder {foreign[0]!r} that is none of the {len(names)} classes")
    return tuple(names)


def _pictures(root: Path, classes: Sequence[str], scaled: bool, limit: int | None) -> list[Picture]:
    pictures: list[Picture] = []
    groups = 0
    for label, name in enumerate(classes):
        files = sorted((root / name).iterdir()) if (root / name).is_dir() else []
        stems: dict[str, int] = {}
        found = []
        for path in files:
            if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
                continue
            match = _SCALE.match(path.stem)
            if scaled and match is None:
                raise DataError(f"{path} does not tell its factor; names end in _scale_0.7.JPEG and the like")
            stem, factor = (match["stem"], float(match["factor"])) if scaled and match else (path.name, 1.0)
            if stem not in stems:
                if limit is not None and len(stems) == limit:
                    continue
                stems[stem] = groups + len(stems)
            found.append(Picture(path, label, stems[stem], factor))
        groups += len(stems)
        pictures += sorted(found, key=lambda p: (p.group, p.factor != 1.0, p.factor))
    if not pictures:
        raise DataError(f"{root} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return pictures


def _check_versions(root: Path, pictures: Sequence[Picture], scales: Sequence[float]) -> None:
    by_group: dict[int, list[Picture]] = {}
    for picture in pictures:
        by_group.setdefault(picture.group, []).append(picture)
    if not pictures:
        raise DataError(f"{root} has no picture at the factors {', '.join(f'{s:g}' for s in scales)}")
    for versions in by_group.values():
        factors = [p.factor for p in versions]
        # one file twice (a .png beside the .JPEG) would be counted twice
        if len(set(factors)) != len(factors):
            raise DataError(f"{versions[0].path} has another file of the same picture and factor beside it")
        missing = sorted(set(scales) - set(factors))
        if missing:
            raise DataError(f"{versions[0].path} has no version at factor {missing[0]:g}")
