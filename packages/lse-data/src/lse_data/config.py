"""Settings of the locally scaled digits (paper, section 5.2)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from lse_core.errors import DataError
from lse_core.settings import Settings, SettingsError, one_line
from lse_data.fields import Count, Flag, Number, Seed, Share, one_of, several

__all__ = [
    "DIRECTIONS",
    "SPLITS",
    "DataSettings",
    "Different",
    "DigitsConfig",
    "Factors",
    "Images",
    "Positive",
    "Resolution",
    "Source",
    "Split",
]

DIRECTIONS = ("horizontal", "vertical", "diagonal")
"""Arrangements of the three digits; the position in this tuple is the code in `DigitsDataset.direction`."""

SPLITS = ("train", "val", "test")
"""Parts of the glyphs; no glyph is in more than one."""

DIGITS_PER_IMAGE = 3

LARGEST = 10**11
"""Bytes of pixels of a data set."""


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError(f"each must be named once; got {list(values)}")
    return values


Positive = Annotated[Number, Field(gt=0)]
Different = AfterValidator(_different)
Factors = Annotated[tuple[Positive, ...], Field(min_length=1), Different]
# bounds that a slip of the pen exceeds, and no data set
Images = Annotated[Count, Field(le=10**8)]
Resolution = Annotated[Count, Field(ge=8, le=8192)]
Split = Annotated[str, one_of("split", SPLITS)]
Source = Annotated[
    str, BeforeValidator(lambda v: os.fspath(v) if isinstance(v, os.PathLike) else v), Field(min_length=1)
]


class DataSettings(Settings):
    """Base of what generators are told; also positional, in the order of the fields.

    Raises:
        UnknownNameError: a name that is no setting, or the value of one that is none of its words.
        DataError: a value that is missing, of the wrong type or out of range.
    """

    def __init__(self, *values: Any, **named: Any) -> None:
        try:
            super().__init__(**dict(zip(type(self).model_fields, values, strict=False)), **named)
        except ValidationError as error:
            said = one_line(type(self), error)
            raise (DataError(str(said)) if isinstance(said, SettingsError) else said) from error


class DigitsConfig(DataSettings):
    """What to generate; equal settings give identical bytes.

    Attributes:
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
    """

    count: Images
    scale: tuple[Positive, Positive] = (0.4, 2.0)
    resolution: Resolution = 96
    directions: Annotated[
        tuple[Annotated[str, one_of("direction", DIRECTIONS)], ...], several, Field(min_length=1), Different
    ] = DIRECTIONS
    seed: Seed = 0
    source: Source = "sklearn"
    split: Split = "train"
    split_seed: Seed = 0
    glyph_size: Positive | None = None
    jitter: Share = 0.5
    antialias: Flag = True
    variants: Annotated[Count, Field(le=10**6)] = 1
    reference: Flag = False

    @field_validator("directions")
    @classmethod
    def _in_order(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # one order, so that the same choice of directions means the same data set
        return tuple(name for name in DIRECTIONS if name in names)

    @model_validator(mode="after")
    def _fits(self) -> DigitsConfig:
        low, high = self.scale
        if low > high:
            raise ValueError(f"scale must be [low, high] with low <= high; got {list(self.scale)}")
        pixels = self.count * self.variants * self.resolution**2
        if pixels > LARGEST:
            raise ValueError(
                f"{self.count} images in {self.variants} variants of {self.resolution} px are "
                f"{pixels / 1e9:.0f} GB, more than {LARGEST / 1e9:.0f}; lower count, variants or resolution"
            )
        if self.reference:
            low, high = min(low, 1.0), max(high, 1.0)
        smallest, largest = low * self.glyph_pixels, high * self.glyph_pixels
        # the slack forgives rounding of R/6, which must not refuse an exact fit
        if largest > self.resolution * (1 + 1e-9):
            raise ValueError(
                f"a digit at factor {high:g} is {largest:.1f} px wide and does not fit {self.resolution} px; "
                "lower scale or glyph_size, or raise resolution"
            )
        if smallest < 1:
            raise ValueError(
                f"a digit at factor {low:g} is {smallest:.2f} px wide, less than one pixel; "
                "raise scale, glyph_size or resolution"
            )
        return self

    @property
    def glyph_pixels(self) -> float:
        """Side of a glyph at factor 1, in pixels: `glyph_size`, or R/6 where that is None."""
        return self.resolution / 6 if self.glyph_size is None else self.glyph_size

    def to_mapping(self) -> dict[str, Any]:
        """The settings as plain JSON values; `from_mapping` takes them back."""
        return self.plain()

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> DigitsConfig:
        """Build from plain values; raises as the constructor does."""
        return cls(**settings)
