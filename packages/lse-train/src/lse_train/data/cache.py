"""Generated digits, kept on disk so that the next run of the same settings reads them back."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from lse_core.errors import DataError, OutputError
from lse_train.data.config import DigitsConfig
from lse_train.data.dataset import DigitsDataset
from lse_train.data.digits import generate_digits
from lse_train.data.glyphs import Glyphs, load_glyphs
from lse_train.data.store import FORMAT_VERSION, read_digits, write_digits_file

__all__ = ["build_digits", "cache_path", "load_digits_dataset"]


def load_digits_dataset(
    config: DigitsConfig, cache_dir: str | os.PathLike[str] | None = None
) -> DigitsDataset:
    """Give the data set that `config` describes: from the cache, or generated and then cached.

    A damaged or foreign cache file is warned about and made anew; a cache that cannot be written is warned
    about and done without. Several processes may do this at once: files appear whole or not at all.

    Args:
        config: the settings.
        cache_dir: folder of the cache; None is the environment variable LSE_CACHE, else ~/.cache/lse.

    Raises:
        DataError: the glyphs cannot be loaded.
    """
    glyphs = load_glyphs(config.source, config.split, config.split_seed)
    path = cache_path(config, glyphs, cache_dir)
    if path.exists():
        try:
            cached = read_digits(path)
            if _meaning(cached.config) != _meaning(config):
                raise DataError(f"{path} holds a data set of other settings")
        except DataError as error:
            warnings.warn(f"cached digits are made anew: {error}", RuntimeWarning, stacklevel=2)
        else:
            return replace(cached, config=config)  # the source folder may have moved since
    dataset = generate_digits(config, glyphs)
    try:
        write_digits_file(dataset, path)
    except OutputError as error:
        warnings.warn(f"the digits are not cached: {error}", RuntimeWarning, stacklevel=2)
    return dataset


def build_digits(cache_dir: str | os.PathLike[str] | None = None, **settings: Any) -> DigitsDataset:
    """Give the data set "digits" by plain settings, as recipes and plugins name it.

    Args:
        cache_dir: see `load_digits_dataset`.
        **settings: fields of `DigitsConfig`.

    Raises:
        UnknownNameError: a setting that does not exist.
        DataError: a setting out of its range, or glyphs that cannot be loaded.
    """
    return load_digits_dataset(DigitsConfig.from_mapping(settings), cache_dir)


def cache_path(config: DigitsConfig, glyphs: Glyphs, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Name the cache file of `config` over `glyphs`.

    The name hashes the settings, the glyphs themselves and the format version. The glyphs rather than their
    folder: another MNIST under the same path is another data set, the same one elsewhere is not.
    """
    root = cache_dir or os.environ.get("LSE_CACHE") or Path.home() / ".cache" / "lse"
    text = json.dumps([FORMAT_VERSION, glyphs.fingerprint(), _meaning(config)], sort_keys=True)
    return Path(root) / "digits" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors"


def _meaning(config: DigitsConfig) -> dict[str, Any]:
    """Give the settings that decide the bytes, given the glyphs."""
    settings = config.to_mapping()
    del settings["source"], settings["split_seed"]
    settings["glyph_size"] = config.glyph_pixels
    return settings
