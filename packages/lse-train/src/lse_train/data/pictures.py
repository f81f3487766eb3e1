"""Pictures without labels: every one in a folder and below, for training that needs none (Eq. 5)."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lse_core.errors import DataError
from lse_core.pictures import SUFFIXES, read_picture
from lse_core.preprocess import Preprocess
from lse_train.data.folder import folder_of, geometry, readable

__all__ = ["Pictures", "build_pictures"]


class Pictures(Dataset[Tensor]):
    """All pictures in a folder and below, sorted by path, read when asked for.

    Item i is float32 (C, H, W) in [0, 1], prepared by `preprocess` but for mean and std.

    Attributes:
        paths: the files, in order.
        preprocess: how pictures are resized and cropped.
        skipped: files left out because they cannot be read.

    Args:
        root: the folder.
        preprocess: how pictures are resized and cropped; None is 224 px, three channels, the middle square.
        skip_bad: read every picture once, now, and leave out those that cannot be read.
        options: what is to be otherwise than in `preprocess`, see `lse_train.data.folder.geometry`:
            resolution, channels, crop, crop_mode, interpolation.

    Raises:
        DataError: no such folder, no pictures in it, or a setting out of range.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        preprocess: Preprocess | None = None,
        skip_bad: bool = False,
        **options: Any,
    ) -> None:
        self.root = folder_of(root)
        self.preprocess = geometry(preprocess, **options)
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}; give the one that holds the pictures")
        found = sorted(
            path
            for path in self.root.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        self.paths, self.skipped = readable(found, skip_bad)
        if not self.paths:
            raise DataError(f"{self.root} holds no pictures ({', '.join(sorted(SUFFIXES))})")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> Tensor:
        pixels = self.preprocess.pixels(read_picture(self.paths[item], self.preprocess.channels))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def build_pictures(
    root: str = "", *, preprocess: Preprocess | None = None, skip_bad: bool = False, **options: Any
) -> Pictures:
    """The data set "pictures": see `Pictures`, `root` being required."""
    if not root:
        raise DataError("root is missing: say which folder holds the pictures")
    return Pictures(root, preprocess=preprocess, skip_bad=skip_bad, **options)
