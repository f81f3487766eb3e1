"""What scikit-learn's two photographs give: places for backgrounds, and things to cut out."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F

__all__ = ["background", "cutout", "photographs"]

Box = tuple[int, int, int, int, int]  # photograph, left, top, right, bottom
CHINA, FLOWER = 0, 1
PLACES: dict[str, tuple[Box, ...]] = {
    # beside the things that are cut out, and apart for training and the rest
    "train": ((CHINA, 385, 0, 535, 427), (FLOWER, 0, 0, 165, 427)),
    "test": ((CHINA, 535, 0, 640, 427), (FLOWER, 455, 0, 640, 390)),
}
# the outline of the pagoda above the trees, in pixels
PAGODA = (
    (205, 30), (214, 34), (217, 60), (245, 88), (283, 108), (320, 124), (302, 134), (292, 140), (296, 160),
    (329, 174), (318, 186), (318, 232), (352, 254), (340, 268), (343, 302), (352, 322), (382, 334),
    (330, 370), (305, 374), (210, 370), (200, 362), (70, 345), (80, 322), (80, 284), (62, 272),
    (97, 236), (98, 186), (84, 178), (120, 160), (120, 138), (95, 128), (100, 110), (150, 92),
    (193, 62), (196, 34),
)  # fmt: skip


@cache
def photographs() -> tuple[NDArray[np.uint8], ...]:
    """Bytes (H, W, 3) of china.jpg and flower.jpg, which scikit-learn brings along."""
    return tuple(np.array(p) for p in load_sample_images().images)


def background(rng: np.random.Generator, split: str, size: int) -> Tensor:
    """A crop of a photograph, float64 (3, size, size) within [0, 1], mirrored and lit at random.

    Training's crops and those of the other splits come from places that do not overlap.
    """
    places = PLACES["train" if split == "train" else "test"]
    photograph, left, top, right, bottom = places[rng.integers(len(places))]
    side = int(rng.integers(64, min(right - left, bottom - top) + 1))
    x, y = int(rng.integers(left, right - side + 1)), int(rng.integers(top, bottom - side + 1))
    crop = torch.from_numpy(photographs()[photograph][y : y + side, x : x + side]).permute(2, 0, 1)
    crop = crop.double() / 255.0
    if rng.random() < 0.5:
        crop = crop.flip(-1)
    out = F.interpolate(crop[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    return (out * rng.uniform(0.65, 1.05)).clamp(0.0, 1.0)


@cache
def cutout(name: str, pixels: int) -> tuple[Tensor, Tensor]:
    """Colours (3, S, S) and opacity (S, S) of a thing of the photographs, float64 within [0, 1]."""
    if name == "flower":
        photograph, (left, top, right, bottom) = photographs()[FLOWER], (166, 80, 450, 364)
        crop = photograph[top:bottom, left:right]
        red, green = crop[..., 0].astype(int), crop[..., 1].astype(int)
        rows, cols = np.indices(red.shape)
        # beyond the blossom there are others and a stalk
        near = np.hypot(rows - 141, cols - 141) < 142
        opacity = _solid((red > green + 20) & near)
    else:
        photograph, (left, top, right, bottom) = photographs()[CHINA], (50, 28, 396, 374)
        crop = photograph[top:bottom, left:right]
        picture = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(picture).polygon([(x - left, y - top) for x, y in PAGODA], fill=255)
        opacity = np.array(picture) > 0
    colours = torch.from_numpy(crop).permute(2, 0, 1).double() / 255.0
    both = torch.cat([colours, torch.from_numpy(opacity).double()[None]])
    size = (pixels, pixels)
    both = F.interpolate(both[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    return both[:3], both[3]


def _solid(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without its holes and gaps of a few pixels: dilated and eroded again."""
    t = torch.from_numpy(mask).double()[None, None]
    grown = F.max_pool2d(t, 13, 1, 6)
    return (-F.max_pool2d(-grown, 13, 1, 6))[0, 0].numpy() > 0.5
