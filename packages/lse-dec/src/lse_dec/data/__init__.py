"""Data sets: locally scaled digits (paper, section 5.2), generated from real handwritten digits.

Names load when first used, so that listing the commands need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lse_dec.data' has no attribute {name!r}")
    value = getattr(import_module(f"lse_dec.data.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
