"""The families of change, and the views of a picture that they give."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor

from lse_core.measuring.measurement import Change
from lse_core.monotone import MonotoneMap
from lse_core.preprocess import Preprocess
from lse_core.random import random_log_slopes
from lse_core.resample import scale
from lse_core.separable import SeparableWarp
from lse_core.settings import Settings

if TYPE_CHECKING:
    from lse_core.measuring.compositing import Cutout
    from lse_core.measuring.scenes import Scene

__all__ = ["Plan", "Views", "object_views", "rotation_views", "steps", "views_of", "warp_views"]

Factor = Annotated[float, Field(ge=0.05, le=20)]
Ratio = Annotated[float, Field(ge=1, le=16)]


def steps(low: float, high: float, count: int, *, geometric: bool = False) -> tuple[float, ...]:
    """`count` numbers from `low` to `high`, in equal steps or by equal factors, rounded to 12 digits."""
    made = np.geomspace(low, high, count) if geometric else np.linspace(low, high, count)
    return tuple(float(f"{value:.12g}") for value in made)


class Plan(Settings):
    """What is done to every picture.

    Attributes:
        factors: by which objects are resized.
        ratios: bounds r of the random warps, whose slopes lie within [1/r, r].
        warps: how many random warps each picture gets; at each ratio they point the same way.
        segments: equal segments an axis of the random warps.
        angles: in degrees, counter-clockwise.
        orbit: factors of both axes of the two-dimensional orbit; empty for none.
        seed: of the random warps and of the bootstrap.
    """

    factors: Annotated[tuple[Factor, ...], Field(min_length=1)] = steps(0.5, 2, 13, geometric=True)
    ratios: Annotated[tuple[Ratio, ...], Field(min_length=1)] = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
    warps: Annotated[int, Field(ge=1, le=1000)] = 2
    segments: Annotated[int, Field(ge=1, le=64)] = 4
    angles: Annotated[tuple[float, ...], Field(min_length=1)] = steps(-90, 90, 13)
    orbit: tuple[Annotated[float, Field(ge=0.05, le=2.9)], ...] = steps(0.5, 2, 7, geometric=True)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("factors", "ratios", "angles", "orbit")
    @classmethod
    def _increasing(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(values)))

    def levels(self, change: Change) -> tuple[float, ...]:
        """The levels of a change."""
        return {"objects": self.factors, "warps": self.ratios, "rotation": self.angles}[change]


UNITS: dict[Change, Literal["factor", "ratio", "degrees"]] = {
    "objects": "factor",
    "warps": "ratio",
    "rotation": "degrees",
}
REFERENCES: dict[Change, float] = {"objects": 1.0, "warps": 1.0, "rotation": 0.0}
"""Level at which nothing changes."""


@dataclass(frozen=True)
class Views:
    """All views of one case: what the model sees, made when asked for.

    Attributes:
        change: the family.
        number: of the object or warp within the picture.
        name: what the object is called.
        image: a view's key to (C, h, w) float32 in [0, 1], prepared but not normalised.
        moved: a view's key and a map of labels (h, w), int64, of the reference view to the map that belongs
            to the view; -1 where nobody knows.
        warp: a view's key to its warp; None for changes that are none.
        levels: the keys of the sweep, in order.
        orbit: the keys of the orbit, row by row (y), or nothing.
        reference: the key of the reference view.
    """

    change: Change
    number: int
    name: str | None
    image: Callable[[Any], Tensor]
    moved: Callable[[Any, Tensor], Tensor]
    warp: Callable[[Any], SeparableWarp] | None
    levels: Sequence[Any]
    orbit: Sequence[Any]
    reference: Any

    @property
    def keys(self) -> list[Any]:
        """Every view once, the reference first."""
        return list(dict.fromkeys([self.reference, *self.levels, *self.orbit]))


def views_of(
    scene: Scene, name: str, preprocess: Preprocess, plan: Plan, changes: Sequence[str]
) -> Iterator[Views]:
    """The views of all cases of one picture.

    Args:
        scene: the picture, with its objects cut out where `changes` has "objects".
        name: of the picture, which with the seed decides its random warps.
        preprocess: how the model's pictures are prepared.
        plan: what is asked for.
        changes: the families of change.
    """
    if "objects" in changes:
        for number, title, cutout in scene.objects:
            yield object_views(cutout, preprocess, plan, number, title)
    if "warps" in changes or "rotation" in changes:
        # a model that takes any size gets pictures of a size that fits into memory
        whole = np.asarray(scene.picture) if preprocess.size is not None else scene.small
        base = prepared(whole, preprocess)
        if "warps" in changes:
            yield from (warp_views(base, plan, name, number) for number in range(plan.warps))
        if "rotation" in changes:
            yield rotation_views(base, plan)


def warp_views(base: Tensor, plan: Plan, name: str, number: int) -> Views:
    """The whole picture under one random monotone warp, weaker and stronger; and the orbit of its middle.

    Args:
        base: (C, h, w) float32 in [0, 1], the prepared picture.
        plan: what is asked for.
        name: of the picture, which with the seed and `number` decides the warp.
        number: of the warp. The orbit goes with the first one.
    """

    def warp(key: tuple[str, float, float]) -> SeparableWarp:
        kind, x, y = key
        if kind == "middle":
            return SeparableWarp(_middle(x), _middle(y))
        if x == 1.0:
            return SeparableWarp.identity()
        place = zlib.crc32(f"{plan.seed}/{number}/{name}".encode("utf-8", "surrogateescape"))
        generator = torch.Generator().manual_seed(plan.seed ^ place)
        return SeparableWarp.from_log_slopes(random_log_slopes(1, plan.segments, x, generator=generator))

    return Views(
        change="warps",
        number=number,
        name=None,
        image=lambda key: scale(base[None], warp(key))[0],
        moved=lambda key, labels: scale(labels[None], warp(key))[0],
        warp=warp,
        levels=[("ratio", ratio, ratio) for ratio in plan.ratios],
        orbit=[("middle", x, y) for y in plan.orbit for x in plan.orbit] if number == 0 else [],
        reference=("ratio", 1.0, 1.0),
    )


def _middle(factor: float) -> MonotoneMap:
    """The map that makes the middle third `factor` times as long, below 3; the rest shares what is left."""
    knots = torch.tensor([[0.0, 1 / 3, 2 / 3, 1.0]])
    half = factor / 6
    return MonotoneMap(knots, torch.tensor([[0.0, 0.5 - half, 0.5 + half, 1.0]]))


def rotation_views(base: Tensor, plan: Plan) -> Views:
    """The whole picture turned about its centre; what lies outside of it is mirrored at its edges.

    Args:
        base: (C, h, w) float32 in [0, 1], the prepared picture.
        plan: what is asked for.
    """
    return Views(
        change="rotation",
        number=0,
        name=None,
        image=lambda angle: _rotated(base, angle, "bilinear"),
        moved=lambda angle, labels: _rotated(labels[None].double(), angle, "nearest")[0].round().long(),
        warp=None,
        levels=list(plan.angles),
        orbit=[],
        reference=0.0,
    )


def _rotated(image: Tensor, degrees: float, mode: str) -> Tensor:
    """(C, h, w) turned counter-clockwise; quarter turns of a square picture only permute its pixels."""
    turns, rest = divmod(degrees, 90.0)
    h, w = image.shape[1:]
    if rest == 0 and (h == w or turns % 2 == 0):
        return torch.rot90(image, int(turns), (1, 2))
    t = torch.deg2rad(torch.tensor(degrees, dtype=image.dtype))
    cos, sin = t.cos(), t.sin()
    y, x = torch.meshgrid(
        *(torch.arange(n, dtype=image.dtype) - (n - 1) / 2 for n in (h, w)), indexing="ij"
    )  # in pixels from the centre, y downwards
    at = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
    sides = torch.tensor([max(w - 1, 1), max(h - 1, 1)], dtype=image.dtype)
    return F.grid_sample(
        image[None], (2 * at / sides)[None], mode=mode, padding_mode="reflection", align_corners=True
    )[0]


def object_views(cutout: Cutout, preprocess: Preprocess, plan: Plan, number: int, name: str | None) -> Views:
    """One object resized, the rest as it is.

    Args:
        cutout: `lse_core.measuring.compositing.Cutout`.
        preprocess: how the model's pictures are prepared.
        plan: what is asked for.
        number: of the object.
        name: what it is called.
    """

    def moved(key: tuple[float, float], labels: Tensor) -> Tensor:
        rows, columns, here, gone = _places(cutout, preprocess, key, (labels.shape[0], labels.shape[1]))
        out = torch.where(torch.from_numpy(gone), -1, labels)
        return torch.where(torch.from_numpy(here), labels[rows[:, None], columns[None]], out)

    return Views(
        change="objects",
        number=number,
        name=name,
        image=lambda key: prepared(cutout.resized(*key), preprocess),
        moved=moved,
        warp=None,
        levels=[(factor, factor) for factor in plan.factors],
        orbit=[(x, y) for y in plan.orbit for x in plan.orbit],
        reference=(1.0, 1.0),
    )


def prepared(picture: NDArray[np.uint8], preprocess: Preprocess) -> Tensor:
    """A picture (H, W, 3) as the model's input before it is normalised, (C, h, w) float32 in [0, 1]."""
    from PIL import Image

    image = Image.fromarray(picture)
    pixels = preprocess.pixels(image.convert("L") if preprocess.channels == 1 else image)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _places(
    cutout: Cutout, preprocess: Preprocess, key: tuple[float, float], size: tuple[int, int]
) -> tuple[Tensor, Tensor, NDArray[np.bool_], NDArray[np.bool_]]:
    """For pixels of the prepared view: rows and columns that the object's content came from, where the object
    is now, and where it was but is no longer."""
    height, width = cutout.background.shape[:2]
    between = preprocess.resized((height, width))
    top, left = preprocess.crop(between)
    places, sides = [], zip(size, (height, width), between, (top, left), (1, 0), strict=True)
    for count, full, resized, start, axis in sides:
        fixed = cutout.fixed[axis] * resized / full - start - 0.5
        pixels = torch.arange(count, dtype=torch.float64)
        places.append((fixed + (pixels - fixed) / key[axis]).round().long().clamp(0, count - 1))
    now, before = (_prepared_mask(cutout, preprocess, at) for at in (key, (1.0, 1.0)))
    return places[0], places[1], now, before & ~now


def _prepared_mask(cutout: Cutout, preprocess: Preprocess, key: tuple[float, float]) -> NDArray[np.bool_]:
    white = cutout.silhouette(*key)
    found: NDArray[np.bool_] = prepared(white, preprocess)[0].numpy() > 0.5
    return found
