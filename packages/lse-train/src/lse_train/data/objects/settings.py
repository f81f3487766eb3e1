"""What to draw, and what the classes are called."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lse_core.errors import DataError, unknown_name

__all__ = ["FACTORS", "FAMILIES", "ObjectsConfig", "class_names", "palette"]

FAMILIES: dict[str, tuple[str, ...]] = {
    "digits": tuple(f"digit {n}" for n in range(10)),
    "shapes": ("disc", "square", "triangle", "star", "ring", "cross"),
    "cutouts": ("flower", "pagoda"),
}
"""Classes by family: handwritten digits, textured shapes, things cut out of the two photographs."""

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)


@dataclass(frozen=True)
class ObjectsConfig:
    """What to draw; equal settings give equal files.

    Args:
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

    Raises:
        DataError: a value out of its range.
        UnknownNameError: no such family.
    """

    train: int
    test: int
    val: int = 0
    size: int = 128
    seed: int = 0
    train_factors: tuple[float, float] = (0.7, 1.4)
    test_factors: tuple[float, ...] = FACTORS
    families: tuple[str, ...] = tuple(FAMILIES)
    side: float = 0.36
    source: str = "sklearn"

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.test, self.seed) < 0 or self.train + self.val + self.test < 1:
            raise DataError(
                "objects: counts and seed must be at least 0, and one image must be asked for; got "
                f"train {self.train}, val {self.val}, test {self.test}, seed {self.seed}"
            )
        if self.size < 32:
            raise DataError(f"objects: images must be at least 32 px wide, not {self.size}")
        low, high = self.train_factors
        if not 0 < low <= high < math.inf:
            raise DataError(f"objects: the training factors must be a range above 0, not {low:g} to {high:g}")
        factors = self.test_factors
        if not factors or len(set(factors)) != len(factors) or not all(0 < f < math.inf for f in factors):
            raise DataError(f"objects: test factors must be different numbers above 0, not {list(factors)}")
        if not 0 < self.side * max(high, *factors) <= 0.8:
            largest = max(high, *factors)
            raise DataError(
                f"objects: at factor {largest:g} a side of {self.side:g} leaves no room for two objects; "
                "side times factor must stay within 0.8"
            )
        for family in self.families:
            if family not in FAMILIES:
                raise unknown_name("family of objects", family, FAMILIES)
        if not self.families or len(set(self.families)) != len(self.families):
            raise DataError(f"objects: name each family once, at least one; got {list(self.families)}")


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
