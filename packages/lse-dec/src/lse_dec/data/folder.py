"""Folders of pictures: one subfolder a class, as ImageNet is laid out, with or without local scales.

The authors name the versions of one picture by their factor,
`n01440764/ILSVRC2012_val_00000293_scale_0.7.JPEG`.
Files of one class that differ in nothing but the factor are one picture, S_I of Eq. 24.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from lse_dec.data.errors import DataError

__all__ = [
    "FolderConfig",
    "ImageFolder",
    "Picture",
    "build_image_folder",
    "build_scaled_folder",
    "open_folder",
]

EXTENSIONS = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp"})
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

    Item i is (image, label): float32 (3, R, R) in [0, 1], the shorter side resized to R (bicubic,
    anti-aliased) and the middle cut out, and an int. Pictures are sorted by class and group, the version at
    factor 1 before the others by factor, so equal folders give equal data sets.

    Attributes:
        pictures: what is where, in order.
        levels: the factors, ascending.
        config: see `FolderConfig`.

    Args:
        root: folder with a subfolder for each class.
        resolution: R in pixels.
        scales: factors to keep; None keeps all. Every picture must have each of them.
        classes: names of the class folders in the order of the model's outputs; None sorts those found.
            A name without a folder is allowed (a subset of ImageNet), a folder without a name is not.
        limit: keep at most so many pictures of a class, the first by name, with all their versions.
        crop: share of the shorter side that is kept, as evaluation of timm's models has it (0.875).
        scaled: names must tell a factor; False takes them as they are and gives every file factor 1.

    Raises:
        DataError: no such folder, no pictures, names without a factor, or versions that are missing.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        resolution: int = 224,
        scales: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        limit: int | None = None,
        crop: float = 1.0,
        scaled: bool = True,
    ) -> None:
        self.root = Path(root).expanduser()
        if resolution < 8 or not 0.0 < crop <= 1.0 or (limit is not None and limit < 1):
            raise DataError(
                "resolution must be at least 8, crop within (0, 1], limit at least 1; "
                f"got {resolution}, {crop}, {limit}"
            )
        self.resolution, self.crop = resolution, crop
        self.classes = _classes(self.root, classes)
        keep = None if scales is None else tuple(float(s) for s in scales)
        self.pictures = [
            p for p in _pictures(self.root, self.classes, scaled, limit) if not keep or p.factor in keep
        ]
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
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{path} cannot be read as a picture: {error}") from error
        side = min(image.size) * self.crop
        left, top = (image.width - side) / 2, (image.height - side) / 2
        size = (self.resolution, self.resolution)
        box = (left, top, left + side, top + side)
        return np.array(image.resize(size, Image.Resampling.BICUBIC, box=box), dtype=np.uint8)


def build_scaled_folder(**settings: Any) -> ImageFolder:
    """The data set "scaled_folder": an `ImageFolder` whose names tell factors, `root` being required."""
    return _build(settings, scaled=True)


def build_image_folder(**settings: Any) -> ImageFolder:
    """The data set "image_folder": an `ImageFolder` of unchanged pictures, `root` being required."""
    return _build(settings, scaled=False)


def open_folder(root: str | os.PathLike[str], **settings: Any) -> ImageFolder:
    """An `ImageFolder` with factors if the first picture's name tells one, else without."""
    folder = Path(root).expanduser()
    first = _pictures(folder, _classes(folder, None), False, 1)[0]
    return ImageFolder(folder, scaled=_SCALE.match(first.path.stem) is not None, **settings)


def _build(settings: dict[str, Any], *, scaled: bool) -> ImageFolder:
    from lse_dec.settings import build

    settings = dict(settings)
    if not settings.get("root"):
        raise DataError("root is missing: say which folder holds the pictures")
    return build(ImageFolder, settings.pop("root"), scaled=scaled, **settings)


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
            if path.suffix.lower() not in EXTENSIONS or path.name.startswith("."):
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
        raise DataError(f"{root} holds no pictures ({', '.join(sorted(EXTENSIONS))})")
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
