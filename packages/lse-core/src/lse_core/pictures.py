"""Pictures: read from files in one way, and shown with labels over them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lse_core.errors import LSEError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "PictureError", "overlay", "picture_files", "read_picture"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
"""Endings, in lower case, of the files that count as pictures where a folder is searched."""


class PictureError(LSEError, ValueError):
    """A file is not a picture, is damaged, or has values whose range is unknown."""


def read_picture(path: str | Path, channels: int = 3) -> Image.Image:
    """Read a picture as people see it.

    Pixels are turned upright as the EXIF orientation says. 16-bit pictures are scaled to eight bits, not
    clipped. Palettes and CMYK become RGB, transparency is laid on white, and RGB becomes grey by the
    ITU-R 601 weights where one channel is asked for. Of an animation the first frame is read.

    Args:
        path: a file in any format that Pillow reads.
        channels: 3 for an RGB image, 1 for a grey one (Pillow's modes "RGB" and "L").

    Returns:
        A Pillow image, loaded, of eight bits a channel.

    Raises:
        PictureError: no such file, no picture, a truncated one, one of more pixels than Pillow's limit
            against decompression bombs, or one whose numbers have no known range (32-bit or float).
        LSEError: a number of channels that pictures do not have.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if channels not in (1, 3):
        raise LSEError(f"pictures have 1 or 3 channels, but {channels} channels were asked for")
    try:
        with warnings.catch_warnings():
            # Pillow warns at half of the size that it refuses; large photographs are no fault
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                kind = file.format
                picture = ImageOps.exif_transpose(file)
                picture.load()
    except FileNotFoundError as error:
        raise PictureError(f"there is no picture {path}") from error
    except IsADirectoryError as error:
        raise PictureError(f"{path} is a folder, not a picture") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise PictureError(
            f"{path} has more than {limit // 1_000_000} million pixels, the most that are read (a small file "
            "of that many can exhaust the memory): save it at a smaller size"
        ) from error
    except UnidentifiedImageError as error:
        empty = Path(path).stat().st_size == 0
        reason = "the file is empty" if empty else "it is of no known format"
        raise PictureError(f"{path} cannot be read as a picture: {reason}") from error
    except Exception as error:  # damaged files raise whatever the decoder stumbles over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{path} cannot be read as a picture: {reason[:200]}") from error
    eight = _eight_bits(path, picture, kind)
    try:
        return eight.convert("L" if channels == 1 else "RGB")
    except ValueError as error:  # LAB, which needs a profile
        raise PictureError(
            f"{path} has colours of kind {eight.mode}, not read here: save it as RGB"
        ) from error


def _eight_bits(path: str | Path, picture: Image.Image, kind: str | None) -> Image.Image:
    """The picture with eight bits a channel and no transparency."""
    from PIL import Image

    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and kind == "PNG"):  # the latter by older releases of Pillow
        values = np.asarray(picture).astype(np.int64)
        return Image.fromarray(np.round(values / 257).astype(np.uint8))
    if mode in ("I", "F"):
        numbers = "floating-point numbers" if mode == "F" else "32-bit numbers"
        raise PictureError(f"{path} holds {numbers} of unknown range; save it with 8 or 16 bits per channel")
    if mode == "PA" or "transparency" in picture.info or picture.has_transparency_data:
        overlay = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB")
    return picture


def picture_files(paths: Iterable[str | Path]) -> list[Path]:
    """The pictures that `paths` name: files as they are, of each folder those in it and below it, by name.

    Files and folders whose names begin with a dot do not count.

    Raises:
        PictureError: a path does not exist, or a folder holds no picture.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and not f.is_dir())
            seen = sorted(f for f in inside if not any(p.startswith(".") for p in f.relative_to(path).parts))
            if not seen:
                endings = ", ".join(sorted(SUFFIXES))
                raise PictureError(f"{path} holds no pictures: files count whose names end in {endings}")
            files += seen
        elif path.exists():
            files.append(path)
        else:
            raise PictureError(f"{path}: no such file or folder")
    return files


def overlay(
    picture: NDArray[np.uint8],
    labels: NDArray[Any],
    colours: NDArray[np.uint8],
    strength: float = 0.5,
    bare: int | None = 0,
) -> NDArray[np.uint8]:
    """Draw labels onto a picture, as transparent colours with solid outlines.

    Args:
        picture: (H, W, 3).
        labels: (H, W) integers; those without a colour (an ignore index) are shown in grey.
        colours: (classes, 3).
        strength: share of the colours.
        bare: the label over which no colour is laid, None for none.
    """
    table = np.full((256, 3), 128, dtype=np.uint8)
    table[: len(colours)] = colours
    painted = table[labels].astype(np.float32)
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    share = np.where(edge, 1.0, np.where(labels == bare, 0.0, strength))[..., None]
    # along an outline the object's colour, on whichever side of it the pixel lies
    right, below = np.roll(labels, -1, 1), np.roll(labels, -1, 0)
    painted[edge] = table[np.maximum(labels, np.maximum(right, below))][edge]
    mixed: NDArray[np.uint8] = (picture * (1.0 - share) + painted * share).round().astype(np.uint8)
    return mixed
