"""The data set of locally scaled digits, held in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lse_core.errors import DataError
from lse_data.config import DIGITS_PER_IMAGE, DigitsConfig

__all__ = ["DigitsDataset"]


@dataclass(frozen=True, eq=False)
class DigitsDataset(Dataset[tuple[Tensor, int]]):
    """Images of three digits, each resized by a factor of its own, with all that was drawn for them.

    Item i is (image, label): float32 (1, R, R) in [0, 1] and an int. Mean and deviation are left to the
    caller. N = `config.count * config.variants`; the variants of one base are neighbours, so
    `images.unflatten(0, (-1, config.variants))` has one base per row.

    Args:
        images: uint8 (N, 1, R, R), bright ink on black.
        labels: int64 (N,) in [0, 1000), the number shown.
        scales: float32 (N, 3), the resize factors in reading order.
        boxes: float32 (N, 3, 4), x0, y0, x1, y1 of each digit in unit coordinates with align_corners: the
            centre of pixel 0 is 0, that of pixel R-1 is 1; at the canvas border boxes reach half a pixel
            beyond. Ink may fade out beyond its box, by half a glyph pixel or one image pixel at most.
        direction: int64 (N,), codes: positions in `DIRECTIONS`.
        glyphs: int64 (N, 3), `Glyphs.index` of each glyph: its position in its source.
        groups: int64 (N,), the base an image is a variant of.
        config: the settings it was made from.

    Raises:
        DataError: a tensor whose shape or dtype does not fit the settings.
    """

    images: Tensor
    labels: Tensor
    scales: Tensor
    boxes: Tensor
    direction: Tensor
    glyphs: Tensor
    groups: Tensor
    config: DigitsConfig

    def __post_init__(self) -> None:
        for name, (dtype, shape) in self.layout(self.config).items():
            tensor = getattr(self, name)
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                raise DataError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}")

    @staticmethod
    def layout(config: DigitsConfig) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Give dtype and shape of every tensor of the data set that `config` describes, by name."""
        n, r, d = config.count * config.variants, config.resolution, DIGITS_PER_IMAGE
        return {
            "images": (torch.uint8, (n, 1, r, r)),
            "labels": (torch.int64, (n,)),
            "scales": (torch.float32, (n, d)),
            "boxes": (torch.float32, (n, d, 4)),
            "direction": (torch.int64, (n,)),
            "glyphs": (torch.int64, (n, d)),
            "groups": (torch.int64, (n,)),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Give all tensors by name, without copying."""
        return {name: getattr(self, name) for name in self.layout(self.config)}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return to_float(self.images[item]), int(self.labels[item])


def to_float(images: Tensor) -> Tensor:
    """Turn uint8 pixels of any shape into float32 in [0, 1]."""
    return images.float() / 255
