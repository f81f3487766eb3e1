"""Data sets: locally scaled digits (paper, section 5.2), generated from real handwritten digits.

Names load when first used, so that listing the commands need not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names

if TYPE_CHECKING:
    from lse_dec.data.cache import build_digits, load_digits_dataset
    from lse_dec.data.config import DIRECTIONS, SPLITS, DigitsConfig
    from lse_dec.data.dataset import DigitsDataset
    from lse_dec.data.digits import DigitSampler, generate_digits
    from lse_dec.data.errors import DataError
    from lse_dec.data.glyphs import Glyphs, load_glyphs, mnist_glyphs, sklearn_glyphs
    from lse_dec.data.store import read_digits, write_digits_file, write_digits_folder

_HOMES = {
    "cache": ["build_digits", "load_digits_dataset"],
    "config": ["DIRECTIONS", "SPLITS", "DigitsConfig"],
    "dataset": ["DigitsDataset"],
    "digits": ["DigitSampler", "generate_digits"],
    "errors": ["DataError"],
    "glyphs": ["Glyphs", "load_glyphs", "mnist_glyphs", "sklearn_glyphs"],
    "store": ["read_digits", "write_digits_file", "write_digits_folder"],
}

__all__ = [
    "DIRECTIONS",
    "SPLITS",
    "DataError",
    "DigitSampler",
    "DigitsConfig",
    "DigitsDataset",
    "Glyphs",
    "build_digits",
    "generate_digits",
    "load_digits_dataset",
    "load_glyphs",
    "mnist_glyphs",
    "read_digits",
    "sklearn_glyphs",
    "write_digits_file",
    "write_digits_folder",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
