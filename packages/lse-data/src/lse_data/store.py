"""Digits on disk: one safetensors file, a folder with it and a description, or a file in the cache."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lse_core.atomic import replacing, staging
from lse_core.errors import DataError, LSEError, OutputError
from lse_data.config import DIRECTIONS, DigitsConfig
from lse_data.dataset import DigitsDataset
from lse_data.digits import generate_digits
from lse_data.files import cache_place, check_folder, move_in
from lse_data.glyphs import load_glyphs

__all__ = [
    "FORMAT_VERSION",
    "build_digits",
    "load_digits_dataset",
    "read_digits",
    "write_digits_file",
    "write_digits_folder",
]

FORMAT = "lse-digits"
FORMAT_VERSION = 1
"""Raised whenever the same settings begin to mean other bytes or another file layout."""

TENSOR_FILE, DESCRIPTION, PICTURES = "digits.safetensors", "digits.json", "png"


def write_digits_file(dataset: DigitsDataset, path: str | os.PathLike[str]) -> None:
    """Write the data set to one safetensors file that appears whole or not at all; raises OutputError."""
    path = Path(path)
    config = json.dumps(dataset.config.plain(), sort_keys=True)
    metadata = {"format": FORMAT, "version": str(FORMAT_VERSION), "config": config}
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
            raise DataError(
                f"{path} contains no finished data set ({DESCRIPTION} is missing); generate it again"
            )
        path = path / TENSOR_FILE
    if not path.is_file():
        raise DataError(f"there is no data set of digits at {path}")
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
    description = _description(dataset)
    with staging(folder.resolve()) as partial:
        write_digits_file(dataset, partial / TENSOR_FILE)
        (partial / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        drawn = partial / "drawn"
        drawn.mkdir()
        for i, (image, label) in enumerate(zip(dataset.images, dataset.labels.tolist(), strict=True)):
            if pictures:
                Image.fromarray(image[0].numpy()).save(drawn / f"{i:06d}_{label:03d}.png")
                if progress is not None:
                    progress(1)
        (folder / DESCRIPTION).unlink(missing_ok=True)  # from here on the folder counts as unfinished
        _exchange_pictures(drawn, folder / PICTURES)
        move_in(partial, folder, DESCRIPTION)
    return description


def _exchange_pictures(drawn: Path, target: Path) -> None:
    """The pictures of an earlier data set in `target` give way to those in `drawn`; the user's own stay."""
    for picture in target.glob("*.png"):
        if re.fullmatch(r"\d{6,}_\d{3}\.png", picture.name):
            picture.unlink()
    with suppress(OSError):  # absent, or it holds files of the user
        target.rmdir()
    for picture in drawn.iterdir():
        target.mkdir(parents=True, exist_ok=True)
        os.replace(picture, target / picture.name)
    drawn.rmdir()


def _description(dataset: DigitsDataset) -> dict[str, Any]:
    """A data set in plain JSON values: settings, sizes and conventions."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "file": TENSOR_FILE,
        "images": len(dataset),
        "config": dataset.config.plain(),
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


def load_digits_dataset(
    config: DigitsConfig, cache_dir: str | os.PathLike[str] | None = None
) -> DigitsDataset:
    """The data set that `config` describes: from the cache, or generated and then cached.

    A damaged or foreign cache file is warned about and made anew; a cache that cannot be written is warned
    about and done without. Several processes may do this at once: files appear whole or not at all.

    The file's name hashes the glyphs themselves rather than the name of their folder: another MNIST under
    the same path is another data set, the same one elsewhere is not.

    Args:
        config: the settings.
        cache_dir: folder of the cache; None is the environment variable LSE_CACHE, else ~/.cache/lse.

    Raises:
        DataError: the glyphs cannot be loaded.
    """
    glyphs = load_glyphs(config.source, config.split, config.split_seed)
    meaning = [FORMAT_VERSION, glyphs.fingerprint(), _meaning(config)]
    path = cache_place("digits", cache_dir, *meaning).with_suffix(".safetensors")
    if path.exists():
        try:
            cached = read_digits(path)
            if _meaning(cached.config) != _meaning(config):
                raise DataError(f"{path} holds a data set of other settings")
        except DataError as error:
            warnings.warn(f"cached digits are generated again: {error}", RuntimeWarning, stacklevel=2)
        else:
            return replace(cached, config=config)  # the source folder may have moved since
    dataset = generate_digits(config, glyphs)
    try:
        write_digits_file(dataset, path)
    except OutputError as error:
        warnings.warn(f"the digits are not cached: {error}", RuntimeWarning, stacklevel=2)
    return dataset


def build_digits(cache_dir: str | os.PathLike[str] | None = None, **settings: Any) -> DigitsDataset:
    """The data set "digits" by plain settings, as recipes and plugins name it.

    Args:
        cache_dir: see `load_digits_dataset`.
        **settings: fields of `DigitsConfig`.

    Raises:
        UnknownNameError: a setting that does not exist.
        DataError: a setting out of its range, or glyphs that cannot be loaded.
    """
    return load_digits_dataset(DigitsConfig(**settings), cache_dir)


def _meaning(config: DigitsConfig) -> dict[str, Any]:
    """The settings that decide the bytes, given the glyphs."""
    settings = {name: v for name, v in config.plain().items() if name not in ("source", "split_seed")}
    return {**settings, "glyph_size": config.glyph_pixels}
