"""What to draw, and what the classes are called."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from lse_data.config import DataSettings, Different, Factors, Positive, Source
from lse_data.fields import Seed, Whole, one_of

__all__ = ["FACTORS", "FAMILIES", "ObjectsConfig", "class_names", "palette"]

FAMILIES: dict[str, tuple[str, ...]] = {
    "digits": tuple(f"digit {n}" for n in range(10)),
    "shapes": ("disc", "square", "triangle", "star", "ring", "cross"),
    "cutouts": ("flower", "pagoda"),
}
"""Classes by family: handwritten digits, textured shapes, things cut out of the two photographs."""

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)

HowMany = Annotated[Whole, Field(ge=0)]
Family = Annotated[str, one_of("family of objects", FAMILIES)]


class ObjectsConfig(DataSettings):
    """What to draw; equal settings give equal files.

    Attributes:
        train: training images; both objects have factors of their own.
        val: images as those of training, of other digits and other places of the photographs.
        test: base images; each is written once a factor, one of its objects resized, the rest held.
        size: side of an image in pixels.
        seed: of everything that is drawn.
        train_factors: range of the factors of training, of validation and of the object that is held.
        test_factors: factors of the object that is resized in test images.
        families: which objects, see `FAMILIES`.
        side: side of an object's box at factor 1, as a share of the image's.
        source: of the digits: "sklearn", or the root folder of MNIST.
    """

    train: HowMany
    test: HowMany
    val: HowMany = 0
    size: Annotated[Whole, Field(ge=32)] = 128
    seed: Seed = 0
    train_factors: tuple[Positive, Positive] = (0.7, 1.4)
    test_factors: Factors = FACTORS
    families: Annotated[tuple[Family, ...], Field(min_length=1), Different] = tuple(FAMILIES)
    side: Positive = 0.36
    source: Source = "sklearn"

    @model_validator(mode="after")
    def _fits(self) -> ObjectsConfig:
        if not self.train + self.val + self.test:
            raise ValueError("one image must be asked for: train, val and test are all 0")
        low, high = self.train_factors
        if low > high:
            raise ValueError(f"train_factors must be [low, high] with low <= high; got {[low, high]}")
        largest = max(high, *self.test_factors)
        if self.side * largest > 0.8:
            raise ValueError(
                f"at factor {largest:g} a side of {self.side:g} leaves no room for two objects; "
                "side times factor must stay within 0.8"
            )
        return self


def class_names(families: Sequence[str] = tuple(FAMILIES)) -> tuple[str, ...]:
    """Names in the order of the labels: "background" is 0."""
    return ("background", *(name for family in families for name in FAMILIES[family]))


def palette(classes: int) -> list[list[int]]:
    """Colours (R, G, B) within 0..255, one a class: black, then hues far from their neighbours."""
    golden = (math.sqrt(5) - 1) / 2
    colours = [[0, 0, 0]]
    for i in range(classes - 1):
        rgb = colorsys.hsv_to_rgb((i * golden) % 1.0, (0.85, 0.55)[i % 2], (1.0, 0.85)[i // 2 % 2])
        colours.append([round(255 * c) for c in rgb])
    return colours
