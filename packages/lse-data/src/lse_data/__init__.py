"""Data sets: locally scaled digits (paper, section 5.2) and folders of locally scaled pictures (5.3).

Names load when first used, so that listing the commands need not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.errors import DataError
from lse_core.lazy import lazy_names

if TYPE_CHECKING:
    from lse_data.config import DIRECTIONS, SPLITS, DigitsConfig
    from lse_data.dataset import DigitsDataset
    from lse_data.digits import DigitSampler, generate_digits
    from lse_data.folder import ImageFolder, build_image_folder, build_scaled_folder
    from lse_data.glyphs import Glyphs, fetch_mnist, load_glyphs, mnist_glyphs, sklearn_glyphs
    from lse_data.scenes import SceneConfig, build_scenes, write_scenes
    from lse_data.store import (
        build_digits,
        load_digits_dataset,
        read_digits,
        write_digits_file,
        write_digits_folder,
    )

__version__ = "0.1.0"

_HOMES = {
    "config": ["DIRECTIONS", "SPLITS", "DigitsConfig"],
    "dataset": ["DigitsDataset"],
    "digits": ["DigitSampler", "generate_digits"],
    "folder": ["ImageFolder", "build_image_folder", "build_scaled_folder"],
    "glyphs": ["Glyphs", "fetch_mnist", "load_glyphs", "mnist_glyphs", "sklearn_glyphs"],
    "scenes": ["SceneConfig", "build_scenes", "write_scenes"],
    "store": [
        "build_digits", "load_digits_dataset", "read_digits", "write_digits_file", "write_digits_folder",
    ],
}  # fmt: skip

__all__ = [
    "DIRECTIONS", "SPLITS", "DataError", "DigitSampler", "DigitsConfig", "DigitsDataset", "Glyphs",
    "ImageFolder", "SceneConfig", "build_digits", "build_image_folder", "build_scaled_folder", "build_scenes",
    "fetch_mnist", "generate_digits", "load_digits_dataset", "load_glyphs", "mnist_glyphs", "read_digits",
    "sklearn_glyphs", "write_digits_file", "write_digits_folder", "write_scenes",
]  # fmt: skip


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
