"""Pictures without labels: every one in a folder and below, for training that needs none (Eq. 5)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from lse_dec.data.errors import DataError
from lse_dec.data.folder import EXTENSIONS

__all__ = ["Pictures", "build_pictures"]


class Pictures(Dataset[Tensor]):
    """All pictures in a folder and below, sorted by path, read when asked for.

    Item i is float32 (C, R, R) in [0, 1]: the middle square, resized (bicubic, anti-aliased).

    Args:
        root: the folder.
        resolution: R in pixels.
        channels: 3 for colour, 1 for grey.

    Raises:
        DataError: no such folder, no pictures in it, or a setting out of range.
    """

    def __init__(self, root: str | os.PathLike[str], *, resolution: int = 224, channels: int = 3) -> None:
        self.root = Path(root).expanduser()
        if resolution < 8 or channels not in (1, 3):
            raise DataError(
                f"resolution must be at least 8, channels 1 or 3; got {resolution!r}, {channels!r}"
            )
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}; give the one that holds the pictures")
        self.resolution, self.mode = resolution, "L" if channels == 1 else "RGB"
        self.paths = sorted(
            path
            for path in self.root.rglob("*")
            if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
        )
        if not self.paths:
            raise DataError(f"{self.root} holds no pictures ({', '.join(sorted(EXTENSIONS))})")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> Tensor:
        path = self.paths[item]
        try:
            with Image.open(path) as file:
                image = file.convert(self.mode)
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{path} cannot be read as a picture: {error}") from error
        square = ImageOps.fit(image, (self.resolution, self.resolution), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square, dtype=np.uint8)).float() / 255
        return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def build_pictures(**settings: Any) -> Pictures:
    """The data set "pictures": see `Pictures`, `root` being required."""
    from lse_dec.settings import build

    if not settings.get("root"):
        raise DataError("root is missing: say which folder holds the pictures")
    return build(Pictures, **settings)
