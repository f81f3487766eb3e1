"""Two objects on a background: where they are, how large, and which one covers the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lse_data.glyphs import Glyphs
from lse_data.objects.photographs import background
from lse_data.objects.settings import ObjectsConfig, class_names
from lse_data.objects.sprites import PIXELS, sprite
from lse_data.render import quantize, tent_weights

__all__ = ["Scene", "draw", "scene"]

SPLITS = ("train", "val", "test")
VISIBLE = 0.3  # of an object's area that must be seen
TRIES = 100
COARSE = 32  # pixels are enough to see how much is covered


@dataclass(frozen=True)
class Scene:
    """Two objects and their places; `draw` makes pictures of it.

    Args:
        background: float64 (3, R, R).
        sprites: float64 (2, 4, S, S).
        labels: the classes of the two.
        centres: float64 (2, 2), x and y in pixel edges.
        factors: of each version of the scene, the factors of the two.
        resized: which object the versions differ in; None where there is one version.
    """

    background: Tensor
    sprites: Tensor
    labels: tuple[int, int]
    centres: Tensor
    factors: tuple[tuple[float, float], ...]
    resized: int | None


def scene(config: ObjectsConfig, split: str, number: int, glyphs: Glyphs) -> Scene:
    """Draw the lots of one scene; each scene has a random stream of its own."""
    rng = np.random.default_rng([config.seed, SPLITS.index(split), number])
    ground = background(rng, split, config.size)
    names = class_names(config.families)
    first, second = (int(i) for i in rng.permutation(np.arange(1, len(names)))[:2])
    mean = ground.mean((1, 2))
    sprites = torch.stack([sprite(names[i], rng, glyphs, mean) for i in (first, second)])
    low, high = np.log(config.train_factors)
    own = np.exp(rng.uniform(low, high, 2)).tolist()
    resized = None
    factors = [(own[0], own[1])]
    if split == "test":
        resized = int(rng.integers(2))
        factors = [(f, own[1]) if resized == 0 else (own[0], f) for f in config.test_factors]
    best, most = None, -1.0
    for _ in range(TRIES):
        centres = torch.from_numpy(rng.uniform(0.25, 0.75, (2, 2)) * config.size)
        candidate = Scene(ground, sprites, (first, second), centres, tuple(factors), resized)
        seen = min(_least_visible(candidate, config, version) for version in range(len(factors)))
        if seen > most:
            best, most = candidate, seen
        if most >= VISIBLE:
            break
    assert best is not None
    return best


def draw(what: Scene, config: ObjectsConfig, version: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One version of a scene: the picture (R, R, 3) and its labels (R, R), 0 being the background.

    The object of the larger factor is the nearer one and covers the other; a pixel belongs to an object
    that covers more than half of it.
    """
    picture, labels = what.background, torch.zeros(config.size, config.size, dtype=torch.uint8)
    layers = _layers(what.sprites, what, config, version)
    for i in _order(what.factors[version]):
        picture = picture * (1.0 - layers[i, 3]) + layers[i, :3]
        labels = torch.where(layers[i, 3] > 0.5, what.labels[i], labels).to(torch.uint8)
    return quantize(picture.clamp(0.0, 1.0)).permute(1, 2, 0).numpy(), labels.numpy()


def _order(factors: Sequence[float]) -> list[int]:
    """From the farthest to the nearest."""
    return sorted(range(len(factors)), key=lambda i: factors[i])


def _layers(
    sprites: Tensor, what: Scene, config: ObjectsConfig, version: int, size: int | None = None
) -> Tensor:
    """Sprites (2, C, S, S) at their places, (2, C, R, R); R may be another `size` than the picture's."""
    size = size or config.size
    length = torch.tensor(what.factors[version], dtype=torch.float64) * config.side * size
    start = what.centres * (size / config.size) - length[:, None] / 2.0
    across = tent_weights(start[:, 0], length, size, PIXELS)
    down = tent_weights(start[:, 1], length, size, PIXELS)
    return down[:, None] @ sprites @ across.mT[:, None]


def _least_visible(what: Scene, config: ObjectsConfig, version: int) -> float:
    """The smaller of the two shares of area that are seen, counted coarsely."""
    alpha = _layers(what.sprites[:, 3:], what, config, version, COARSE)[:, 0]
    far, near = _order(what.factors[version])
    sides = torch.tensor(what.factors[version], dtype=torch.float64) * config.side * COARSE
    whole = what.sprites[:, 3].mean((1, 2)) * sides.square()
    seen = torch.stack([(alpha[far] * (1.0 - alpha[near])).sum(), alpha[near].sum()])
    return float((seen / whole[[far, near]]).min())
