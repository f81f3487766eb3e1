"""Images as a model wants them: sizes and normalisation read off the model, pictures read off files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_export.errors import ExportError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "Preparation",
    "picture_files",
    "preparation_of",
    "read_images",
    "read_picture",
    "sample_images",
]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


@dataclass(frozen=True)
class Preparation:
    """From a picture to a model's input: resized to height x width, (v/255 - mean) / std by channel.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        height: pixels.
        width: pixels.
        mean: by channel, of values in [0, 1].
        std: by channel, of values in [0, 1].
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def preparation_of(model: nn.Module, size: tuple[int, int] | None = None) -> Preparation:
    """What `model` takes: from its image site, its fixed input size and timm's data config.

    Args:
        model: a timm model, adapted or not.
        size: (height, width) instead of the model's own.

    Raises:
        ExportError: nothing in the model says what size it takes.
    """
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    site = getattr(getattr(model, "sites", {}).get("image", None), "where", None)
    embed = getattr(model, "patch_embed", None)
    shape = tuple(config.get("input_size", ()))
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if embed is not None and hasattr(embed, "proj"):
        first = embed.proj
    channels = site.channels if site is not None else first.in_channels if first is not None else shape[0]
    own = getattr(site, "size", None) or getattr(embed, "img_size", None) or shape[1:]
    if size is None and len(own) != 2:
        raise ExportError(f"{type(model).__name__} does not say what image size it takes; give one")
    height, width = size or own
    mean, std = config.get("mean", (0.0,) * channels), config.get("std", (1.0,) * channels)
    if len(mean) != channels or len(std) != channels:
        mean, std = (0.0,) * channels, (1.0,) * channels
    return Preparation(int(channels), int(height), int(width), tuple(mean), tuple(std))


def sample_images(preparation: Preparation, count: int = 2) -> Tensor:
    """Smooth made-up images, (count, C, H, W), where no picture is at hand; always the same."""
    p = preparation
    coarse = torch.rand(count, p.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    fine = nn.functional.interpolate(coarse, size=(p.height, p.width), mode="bilinear", align_corners=True)
    return _normalise(fine, p)


def picture_files(paths: Iterable[Path]) -> list[Path]:
    """The pictures among `paths`, folders searched one level deep; in order.

    Raises:
        ExportError: a path does not exist, or there is no picture at all.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise ExportError(f"{path}: no such file or folder")
    if not files:
        raise ExportError(f"no pictures found; known are files ending in {', '.join(sorted(SUFFIXES))}")
    return files


def read_images(files: Sequence[Path], preparation: Preparation) -> Tensor:
    """Pictures as one batch (n, C, H, W), float32, resized without regard to their aspect ratio.

    Raises:
        ExportError: a file is no picture.
        LSEError: the model takes neither one nor three channels.
    """
    from PIL import Image

    p = preparation
    batch = []
    for file in files:
        sized = read_picture(file, p.channels).resize((p.width, p.height), Image.Resampling.BICUBIC)
        array = np.asarray(sized, np.float32).reshape(p.height, p.width, p.channels)
        batch.append(torch.from_numpy(array / 255.0).permute(2, 0, 1))
    return _normalise(torch.stack(batch), p)


def read_picture(file: Path, channels: int) -> Image.Image:
    """A picture in grey (1 channel) or RGB (3), as it lies in the file.

    Raises:
        ExportError: the file is no picture.
        LSEError: another number of channels.
    """
    from PIL import Image

    if channels not in (1, 3):
        raise LSEError(f"pictures have 1 or 3 channels, the model takes {channels}")
    try:
        with Image.open(file) as picture:
            return picture.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError) as error:
        raise ExportError(f"{file} is no picture that can be read: {error}") from error


def _normalise(x: Tensor, p: Preparation) -> Tensor:
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (p.mean, p.std))
    return (x - mean) / std
