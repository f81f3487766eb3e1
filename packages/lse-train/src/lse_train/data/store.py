"""Digits on disk: one safetensors file, or a folder with that file, a readable description and pictures."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lse_core.atomic import replacing, staging
from lse_core.errors import DataError, LSEError, OutputError
from lse_train.data.config import DIRECTIONS, DigitsConfig
from lse_train.data.dataset import DigitsDataset

__all__ = ["FORMAT_VERSION", "read_digits", "write_digits_file", "write_digits_folder"]

FORMAT = "lse-digits"
FORMAT_VERSION = 1
"""Raised whenever the same settings begin to mean other bytes or another file layout."""

TENSOR_FILE, DESCRIPTION, PICTURES = "digits.safetensors", "digits.json", "png"


def write_digits_file(dataset: DigitsDataset, path: str | os.PathLike[str]) -> None:
    """Write the data set to one safetensors file that appears whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "config": json.dumps(dataset.config.to_mapping(), sort_keys=True),
    }
    try:
        with replacing(path, overwrite=True) as partial:
            save_file(dataset.tensors(), partial, metadata)
    except SafetensorError as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def read_digits(path: str | os.PathLike[str]) -> DigitsDataset:
    """Read a data set from its file, or from a folder that `write_digits_folder` finished.

    Raises:
        DataError: nothing there, an unfinished folder, or a truncated, foreign or outdated file.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / DESCRIPTION).is_file():
            raise DataError(f"{path} holds no finished data set ({DESCRIPTION} is missing); write it anew")
        path = path / TENSOR_FILE
    if not path.is_file():
        raise DataError(f"there is no digits data set at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DataError(f"{path} is not a digits data set; it is some other safetensors file")
            if metadata.get("version") != str(FORMAT_VERSION):
                raise DataError(f"{path} has format version {metadata.get('version')}, not {FORMAT_VERSION}")
            config = DigitsConfig.from_mapping(json.loads(metadata["config"]))
            tensors = {name: file.get_tensor(name) for name in DigitsDataset.layout(config)}
        return DigitsDataset(**tensors, config=config)
    except DataError:
        raise
    except (OSError, SafetensorError, LSEError, ValueError, TypeError, LookupError) as error:
        raise DataError(f"{path} is damaged or no safetensors file; write it anew ({error})") from error


def write_digits_folder(
    dataset: DigitsDataset,
    folder: str | os.PathLike[str],
    pictures: bool = False,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write `digits.safetensors`, `digits.json` and, if asked for, `png/<number>_<label>.png`.

    All of it is written to a hidden folder beside the target and moved there at the end, the description
    last: a folder without it is unfinished. With `force` an earlier data set is replaced; files that are
    not of its making stay.

    Args:
        dataset: what to write.
        folder: where; made if absent.
        pictures: write every image as a PNG too.
        force: allow a folder that is not empty.
        progress: called with the number of pictures just written.

    Returns:
        The description, as in `digits.json`.

    Raises:
        OutputError: the folder is not empty and `force` is off, or it cannot be written.
    """
    folder = Path(folder)
    check_folder(folder, force)
    with staging(folder.resolve()) as partial:
        write_digits_file(dataset, partial / TENSOR_FILE)
        if pictures:
            _write_pictures(dataset, partial / PICTURES, progress)
        description = describe(dataset)
        (partial / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        _move_in(partial, folder)
    return description


def check_folder(folder: Path, force: bool) -> None:
    """Raise `OutputError` unless `folder` is absent, empty, or a folder that `force` allows to change."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder to write to")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; name another folder, or replace its data set with --force")


def describe(dataset: DigitsDataset) -> dict[str, Any]:
    """Describe a data set in plain JSON values: settings, sizes and conventions."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "file": TENSOR_FILE,
        "images": len(dataset),
        "config": dataset.config.to_mapping(),
        "tensors": {
            name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
            for name, tensor in dataset.tensors().items()
        },
        "direction_codes": dict(enumerate(DIRECTIONS)),
        "box_convention": "x0, y0, x1, y1; 0 is the centre of the first pixel, 1 that of the last",
        "glyph_convention": "position of the glyph in its source, in reading order",
        "scale_min": float(dataset.scales.min()),
        "scale_max": float(dataset.scales.max()),
    }


def _write_pictures(dataset: DigitsDataset, folder: Path, progress: Callable[[int], None] | None) -> None:
    folder.mkdir()
    for i, (image, label) in enumerate(zip(dataset.images, dataset.labels.tolist(), strict=True)):
        Image.fromarray(image[0].numpy()).save(folder / f"{i:06d}_{label:03d}.png")
        if progress is not None:
            progress(1)


def _move_in(partial: Path, folder: Path) -> None:
    """Move a finished data set into `folder` over an earlier one, touching only files of that making."""
    folder.mkdir(parents=True, exist_ok=True)
    # from here to the last line the folder counts as unfinished
    (folder / DESCRIPTION).unlink(missing_ok=True)
    old = folder / PICTURES
    for picture in old.glob("*.png"):
        if re.fullmatch(r"\d{6,}_\d{3}\.png", picture.name):
            picture.unlink()
    with suppress(OSError):  # absent, or it holds files of the user
        old.rmdir()
    os.replace(partial / TENSOR_FILE, folder / TENSOR_FILE)
    if (partial / PICTURES).is_dir():
        old.mkdir(exist_ok=True)
        for picture in (partial / PICTURES).iterdir():
            os.replace(picture, old / picture.name)
    os.replace(partial / DESCRIPTION, folder / DESCRIPTION)
