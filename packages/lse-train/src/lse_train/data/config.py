"""Settings of the locally scaled digits (paper, section 5.2)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from lse_core.errors import DataError, unknown_name

__all__ = ["DIRECTIONS", "MOST", "SPLITS", "DigitsConfig", "whole"]

DIRECTIONS = ("horizontal", "vertical", "diagonal")
"""Arrangements of the three digits; the position in this tuple is the code in `DigitsDataset.direction`."""

SPLITS = ("train", "val", "test")
"""Parts of the glyphs; no glyph is in more than one."""

DIGITS_PER_IMAGE = 3

MOST = {"count": 10**8, "resolution": 8192, "variants": 10**6}
"""Bounds that a slip of the pen exceeds, and no data set."""

LARGEST = 10**11
"""Bytes of pixels of a data set."""


@dataclass(frozen=True)
class DigitsConfig:
    """What to generate: frozen, checked on construction, equal settings give identical bytes.

    Args:
        count: number of base images, at least 1; the data set holds `count * variants` images.
        scale: lowest and highest resize factor; each digit's own factor is uniform between them. The
            paper's range is (0.4, 2.0); Table 3 tests (0.4, 1.0), (1.0, 2.0) and (2.0, 3.0).
        resolution: height and width R of the square images, in pixels (the paper: 224).
        directions: arrangements to draw from, with equal chance: names out of `DIRECTIONS`.
        seed: seed of the numbers, glyphs, factors and places. Splits with one seed still differ.
        source: "sklearn" for scikit-learn's bundled digits, else the root folder of MNIST.
        split: "train", "val" or "test".
        split_seed: seed of the division of the glyphs into splits. Apart from `seed` on purpose: training and
            test sets of different `seed` must share it, or glyphs leak from one into the other.
        glyph_size: side of a glyph at factor 1, in pixels; None stands for R/6, so that three digits at
            factor 2 just fit.
        jitter: how far a digit of a row or column strays across its line, in [0, 1]: its centre lies within
            jitter/2 of its own size from the line. At most 1, so the line crosses all three boxes and a
            row can never be read as a column. (A diagonal needs none: its two axes draw gaps of their own.)
        antialias: widen the triangle filter when a glyph shrinks, as PIL and torch do.
        variants: images per base: same number, glyphs, direction and random places, other factors. With
            more than one these are the set S_I of Eq. 24.
        reference: make variant 0 the image with every factor 1.

    Raises:
        DataError: a value out of its range, or boxes that cannot fit the canvas.
        UnknownNameError: an unknown split or direction.
    """

    count: int
    scale: tuple[float, float] = (0.4, 2.0)
    resolution: int = 96
    directions: tuple[str, ...] = DIRECTIONS
    seed: int = 0
    source: str = "sklearn"
    split: str = "train"
    split_seed: int = 0
    glyph_size: float | None = None
    jitter: float = 0.5
    antialias: bool = True
    variants: int = 1
    reference: bool = False

    def __post_init__(self) -> None:
        # JSON and click hand over lists and paths: store the one spelling that compares and hashes
        object.__setattr__(self, "scale", _pair(self.scale))
        object.__setattr__(self, "directions", _names(self.directions))
        object.__setattr__(self, "jitter", _number("jitter", self.jitter))
        if not isinstance(self.source, str | os.PathLike) or not os.fspath(self.source):
            raise DataError(f'source must be "sklearn" or the root folder of MNIST, not {self.source!r}')
        object.__setattr__(self, "source", str(os.fspath(self.source)))
        for name, least in (("count", 1), ("resolution", 8), ("seed", 0), ("split_seed", 0), ("variants", 1)):
            whole(name, getattr(self, name), least, MOST.get(name))
        for name in ("antialias", "reference"):
            if not isinstance(getattr(self, name), bool):
                raise DataError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.split not in SPLITS:
            raise unknown_name("split", str(self.split), SPLITS)
        if not 0 <= self.jitter <= 1:
            raise DataError(f"jitter must lie in [0, 1], not {self.jitter}")
        if self.glyph_size is not None:
            object.__setattr__(self, "glyph_size", _number("glyph_size", self.glyph_size))
            if self.glyph_pixels <= 0:
                raise DataError(f"glyph_size must be a positive number of pixels, not {self.glyph_size}")
        pixels = self.count * self.variants * self.resolution**2
        if pixels > LARGEST:
            raise DataError(
                f"{self.count} images in {self.variants} variants of {self.resolution} px are "
                f"{pixels / 1e9:.0f} GB, more than {LARGEST / 1e9:.0f}; lower count, variants or resolution"
            )
        self._check_boxes()

    def _check_boxes(self) -> None:
        low, high = self.scale
        if self.reference:
            low, high = min(low, 1.0), max(high, 1.0)
        smallest, largest = low * self.glyph_pixels, high * self.glyph_pixels
        # the slack forgives rounding of R/6, which must not refuse an exact fit
        if largest > self.resolution * (1 + 1e-9):
            raise DataError(
                f"a digit at factor {high:g} is {largest:.1f} px wide and does not fit {self.resolution} px; "
                "lower scale or glyph_size, or raise resolution"
            )
        if smallest < 1:
            raise DataError(
                f"a digit at factor {low:g} is {smallest:.2f} px wide, less than one pixel; "
                "raise scale, glyph_size or resolution"
            )

    @property
    def glyph_pixels(self) -> float:
        """Side of a glyph at factor 1, in pixels: `glyph_size`, or R/6 where that is None."""
        return self.resolution / 6 if self.glyph_size is None else self.glyph_size

    def to_mapping(self) -> dict[str, Any]:
        """Give the settings as plain JSON values; `from_mapping` takes them back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> DigitsConfig:
        """Build the settings from a mapping, refusing keys it does not know.

        Raises:
            UnknownNameError: a key that is no setting.
            DataError: `count` is missing, or a value is refused by the constructor.
        """
        known = [field.name for field in fields(cls)]
        for key in settings:
            if key not in known:
                raise unknown_name("digits setting", str(key), known)
        if "count" not in settings:
            raise DataError("count is missing: say how many base images to generate")
        return cls(**settings)


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse, by its `name`, a setting that is no whole number of at least `least` and at most `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if value >= 2**63:  # what torch takes as a seed
        raise DataError(f"{name} must be below 2**63, not {value}")
    if most is not None and value > most:
        raise DataError(f"{name} must be at most {most}, not {value}")


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name} must be a finite number, not {value!r}")
    return float(value)


def _pair(value: object) -> tuple[float, float]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise DataError(f"scale must be two numbers, low and high, not {value!r}")
    numbers = [_number("each end of scale", entry) for entry in value]
    if len(numbers) != 2 or not 0 < numbers[0] <= numbers[1]:
        raise DataError(f"scale must be two numbers with 0 < low <= high, not {value!r}")
    return numbers[0], numbers[1]


def _names(value: object) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else ()
    if not names or len(set(names)) != len(names):
        raise DataError(f"directions must name at least one arrangement, each once, not {value!r}")
    for name in names:
        if name not in DIRECTIONS:
            raise unknown_name("direction", str(name), DIRECTIONS)
    # one order, so that the same choice of directions means the same data set
    return tuple(name for name in DIRECTIONS if name in names)
