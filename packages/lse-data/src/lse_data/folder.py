"""Folders of pictures: without labels, or one subfolder a class as in ImageNet, with local scales or not.

The authors name the versions of one picture by their factor,
`n01440764/ILSVRC2012_val_00000293_scale_0.7.JPEG`.
Files of one class that differ in nothing but the factor are one picture, S_I of Eq. 24.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lse_core.errors import DataError, LSEWarning, unknown_name
from lse_core.pictures import SUFFIXES, PictureError, read_picture
from lse_core.preprocess import Preprocess
from lse_core.settings import validated
from lse_data.config import DataSettings
from lse_data.fields import Count, Flag, Number

__all__ = ["FolderConfig", "ImageFolder", "Picture", "Pictures", "geometry", "open_folder"]

OPTIONS = ("resolution", "channels", "crop", "crop_mode", "interpolation")
_SCALE = re.compile(r"^(?P<stem>.+)_scale_(?P<factor>\d+(?:\.\d+)?)$")


class Picture(NamedTuple):
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


class FolderConfig(NamedTuple):
    """How the pictures of a folder belong together.

    Attributes:
        variants: versions of each picture, which are neighbours; more than one are the set S_I of Eq. 24.
    """

    variants: int


class _Choice(DataSettings):
    """Which pictures of a folder, see `ImageFolder`."""

    scales: tuple[Number, ...] | None = None
    classes: tuple[str, ...] | None = None
    limit: Count | None = None
    scaled: Flag = True


class Pictures(Dataset[Any]):
    """All pictures in a folder and below, sorted by path, read when asked for; without labels (Eq. 5).

    Item i is float32 (C, H, W) in [0, 1], prepared by `preprocess` but for mean and std.

    Attributes:
        paths: the files, in order.
        preprocess: how pictures are resized and cropped.
        skipped: files left out because they cannot be read.

    Args:
        root: the folder; required.
        preprocess: how pictures are resized and cropped; None is 224 px, three channels, the middle square.
        skip_bad: read every picture once, now, and leave out those that cannot be read.
        options: what is to be otherwise than in `preprocess`, see `geometry`: resolution, channels, crop,
            crop_mode, interpolation.

    Raises:
        DataError: no such folder, no pictures in it, or a setting out of range.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "",
        *,
        preprocess: Preprocess | None = None,
        skip_bad: bool = False,
        **options: Any,
    ) -> None:
        self.root = _folder_of(root)
        self.preprocess = geometry(preprocess, **options)
        self.paths, self.skipped = _readable(self._found(), skip_bad)
        if not self.paths:
            raise DataError(f"{self.root} holds no pictures ({', '.join(sorted(SUFFIXES))})")

    def _found(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if _is_picture(path))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> Any:
        return torch.from_numpy(self.uint8(item)).permute(2, 0, 1).float() / 255

    def uint8(self, item: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Pixels of one picture, (H, W, C)."""
        return self.preprocess.pixels(read_picture(self.paths[item], self.preprocess.channels))


class ImageFolder(Pictures):
    """Pictures in class folders, read when asked for.

    Item i is (image, label): float32 (C, H, W) in [0, 1], prepared by `preprocess` but for mean and std,
    and an int. Pictures are sorted by class and group, the version at factor 1 before the others by factor,
    so equal folders give equal data sets.

    Attributes:
        pictures: what is where, in order.
        classes: names of the class folders, in the order of the labels.
        levels: the factors, ascending.
        config: see `FolderConfig`.

    Args:
        root: folder with a subfolder for each class; required.
        preprocess: as in `Pictures`, and so are `skip_bad` and `options`.
        scales: factors to keep; None keeps all. Every picture must have each of them.
        classes: names of the class folders in the order of the model's outputs; None sorts those found.
            A name without a folder is allowed (a subset of ImageNet), a folder without a name is not.
        limit: keep at most so many pictures of a class, the first by name, with all their versions.
        scaled: names must tell a factor; False takes them as they are and gives every file factor 1.

    Raises:
        DataError: no such folder, no pictures, names without a factor, or versions that are missing.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "",
        *,
        preprocess: Preprocess | None = None,
        scales: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        limit: int | None = None,
        scaled: bool = True,
        skip_bad: bool = False,
        **options: Any,
    ) -> None:
        chosen: Any = {"scales": scales, "classes": classes, "limit": limit, "scaled": scaled}
        self._choice = _Choice(**chosen)
        super().__init__(root, preprocess=preprocess, skip_bad=skip_bad, **options)
        kept = set(self.paths)
        self.pictures = [picture for picture in self._all if picture.path in kept]
        self.levels = tuple(sorted({p.factor for p in self.pictures}))
        self._check_versions(self._choice.scales or self.levels)
        self.config = FolderConfig(max(1, len(self.levels)))

    def _found(self) -> list[Path]:
        self.classes = _classes(self.root, self._choice.classes)
        scales, every = self._choice.scales, _pictures(self.root, self.classes, self._choice)
        self._all = [p for p in every if scales is None or p.factor in scales]
        if not self._all:
            what = (
                f"picture at the factors {', '.join(f'{s:g}' for s in scales or ())}" if every else "pictures"
            )
            raise DataError(
                f"{self.root} has no {what}; files count that end in {', '.join(sorted(SUFFIXES))}"
            )
        return [p.path for p in self._all]

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return super().__getitem__(item), self.pictures[item].label

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

    def _check_versions(self, scales: Sequence[float]) -> None:
        for _, group in groupby(self.pictures, key=lambda p: p.group):
            versions = list(group)
            factors = {p.factor for p in versions}
            # one file twice (a .png beside the .JPEG) would be counted twice
            if len(factors) < len(versions):
                raise DataError(
                    f"{versions[0].path} has another file of the same picture and factor beside it"
                )
            if missing := sorted(set(scales) - factors):
                raise DataError(f"{versions[0].path} has no version at factor {missing[0]:g}")


def build_scaled_folder(
    root: str = "", *, preprocess: Preprocess | None = None, **settings: Any
) -> ImageFolder:
    """The data set "scaled_folder": an `ImageFolder` whose file names contain factors."""
    return ImageFolder(root, preprocess=preprocess, **settings)


def build_image_folder(
    root: str = "", *, preprocess: Preprocess | None = None, **settings: Any
) -> ImageFolder:
    """The data set "image_folder": an `ImageFolder` of unchanged pictures."""
    return ImageFolder(root, preprocess=preprocess, scaled=False, **settings)


def open_folder(root: str | os.PathLike[str], **settings: Any) -> ImageFolder:
    """An `ImageFolder` with factors if the name of the first picture contains one, else without."""
    folder = _folder_of(root)
    first = _pictures(folder, _classes(folder, None), _Choice(limit=1, scaled=False))[:1]
    return ImageFolder(folder, scaled=any(_SCALE.match(p.path.stem) for p in first), **settings)


def geometry(preprocess: Preprocess | None = None, **options: Any) -> Preprocess:
    """How the pictures of a folder are resized and cropped; mean and std play no part here.

    Args:
        preprocess: what holds where the options say nothing; None: 224 px, three channels, the middle square,
            bicubic.
        options: "resolution" in pixels, one number or (height, width), from 8 to 8192; "channels", 1 or 3;
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
        both = name == "resolution" and not isinstance(value, list | tuple)
        values[names.get(name, name)] = (value, value) if both else value
    channels = values["channels"]
    if channels not in (1, 3):
        raise DataError(f"channels must be 1 or 3; got {channels!r}")
    try:
        made = validated(Preprocess, {**values, "mean": (0.0,) * channels, "std": (1.0,) * channels})
    except ValueError as error:
        raise DataError(f"preparing pictures: {error}") from error
    if made.size is None:
        raise DataError("the model takes pictures of any size: give resolution")
    if not all(8 <= side <= 8192 for side in made.size):
        raise DataError(f"resolution must lie within 8 and 8192 pixels a side; got {made.size}")
    return made


def _folder_of(root: str | os.PathLike[str]) -> Path:
    """The folder that `root` names, ~ standing for the user's own; a DataError for what names none."""
    if root == "":
        raise DataError("root is missing: give the folder that contains the pictures")
    try:
        folder = Path(root).expanduser()
    except (TypeError, RuntimeError) as error:
        raise DataError(f"root must name a folder; got {root!r}: {error}") from error
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; give the one that holds the pictures")
    return folder


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _readable(paths: Sequence[Path], skip_bad: bool) -> tuple[list[Path], tuple[Path, ...]]:
    """The files that are pictures, and those left out; with `skip_bad` off, all of them unread.

    Warns with the number of files left out and the reason of the first.
    """
    bad: dict[Path, str] = {}
    for path in paths if skip_bad else ():
        try:
            read_picture(path)
        except PictureError as error:
            bad[path] = str(error)
    if bad:
        first = next(iter(bad.values()))
        warnings.warn(f"left out {len(bad)} of {len(paths)} pictures; {first}", LSEWarning, stacklevel=3)
    return [path for path in paths if path not in bad], tuple(bad)


def _classes(root: Path, names: Sequence[str] | None) -> tuple[str, ...]:
    found = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise DataError(f"{root} has no subfolders; pictures belong in one subfolder for each class")
    foreign = sorted(set(found) - set(found if names is None else names))
    if foreign:
        raise DataError(f"{root} has a folder {foreign[0]!r} that is none of the {len(names or ())} classes")
    return tuple(found if names is None else names)


def _pictures(root: Path, classes: Sequence[str], choice: _Choice) -> list[Picture]:
    pictures: list[Picture] = []
    groups = 0
    for label, name in enumerate(classes):
        stems: dict[str, int] = {}
        found = []
        for path in sorted((root / name).iterdir()) if (root / name).is_dir() else ():
            if not _is_picture(path):
                continue
            match = _SCALE.match(path.stem) if choice.scaled else None
            if choice.scaled and match is None:
                raise DataError(f"{path} does not contain its factor; names must end like _scale_0.7.JPEG")
            stem, factor = (match["stem"], float(match["factor"])) if match else (path.name, 1.0)
            if stem not in stems and len(stems) == choice.limit:
                continue
            found.append(Picture(path, label, stems.setdefault(stem, groups + len(stems)), factor))
        groups += len(stems)
        pictures += sorted(found, key=lambda p: (p.group, p.factor != 1.0, p.factor))
    return pictures
