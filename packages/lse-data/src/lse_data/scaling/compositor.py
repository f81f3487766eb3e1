"""The last stage: resized objects on the background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lse_core.objects import scale_objects
from lse_data.compositing import fixed_point
from lse_data.scaling.stages import Box, Mask, Picture

__all__ = ["Placed", "box_of", "compose", "front_to_back", "place", "soft_edge"]

EDGES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Placed:
    """Where an object of some factor goes.

    Attributes:
        fixed: x and y of the point that stays, in pixels from the left and top edges of the picture.
        box: of the resized object: left, top, right and bottom in pixels.
        beyond: edges of the picture that it reaches over, and by how many pixels.
        moved: x and y in pixels by which it was moved to fit.
    """

    fixed: tuple[float, float]
    box: Box
    beyond: dict[str, float]
    moved: tuple[float, float] = (0.0, 0.0)


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a mask (H, W) that is not empty, in pixels."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left, top, left + width, top + height


def cut_edges(mask: Mask) -> list[str]:
    """The edges of the picture at which an object ends."""
    height, width = mask.shape
    return [
        edge
        for edge, side, end in zip(EDGES, box_of(mask), (0, 0, width, height), strict=True)
        if side == end
    ]


def place(mask: Mask, factor: float, *, foot: bool = False, fit: bool = False) -> Placed:
    """Where an object goes that is resized about its middle or foot, or about the edge that cuts it off.

    Reaching over an edge at which it was cut off before does not count.

    Args:
        mask: (H, W), where it is.
        factor: by which it is resized.
        foot: see `lse_data.compositing.fixed_point`.
        fit: move it so that it reaches over no edge, if there is room.
    """
    fixed, old = fixed_point(mask, foot=foot), box_of(mask)
    cut, size = cut_edges(mask), (mask.shape[1], mask.shape[0])

    def new(point: tuple[float, float]) -> Box:
        left, top, right, bottom = (
            point[i % 2] + (side - point[i % 2]) * factor for i, side in enumerate(old)
        )
        return left, top, right, bottom

    box = new(fixed)
    moved = [0.0, 0.0]
    for axis in (0, 1):
        low, high = box[axis], box[axis + 2]
        if fit and high - low <= size[axis] and not {EDGES[axis], EDGES[axis + 2]} & set(cut):
            moved[axis] = max(0.0, -low) - max(0.0, high - size[axis])
    # a resized object moves by (1 - factor) times what the point that stays is moved by
    x, y = (fixed[i] + (moved[i] / (1.0 - factor) if moved[i] else 0.0) for i in (0, 1))
    box = new((x, y))
    over = (-box[0], -box[1], box[2] - size[0], box[3] - size[1])
    beyond = {
        edge: round(pixels, 3)
        for edge, pixels in zip(EDGES, over, strict=True)
        if pixels > 0.01 and edge not in cut
    }
    return Placed((x, y), box, beyond, (moved[0], moved[1]))


def soft_edge(mask: Mask, deviation: float) -> NDArray[np.float32]:
    """The opacity (H, W) in [0, 1] of an object: its mask, blurred, and as opaque at the picture's edges."""
    alpha: NDArray[np.float32] = mask.astype(np.float32)
    if deviation:
        side = 2 * math.floor(3 * deviation) + 1
        cv2.GaussianBlur(alpha, (side, side), deviation, dst=alpha, borderType=cv2.BORDER_REPLICATE)
        alpha[alpha > 1 - 1e-5] = 1  # sums of weights miss 1 by rounding
    return alpha


def front_to_back(masks: Sequence[Mask], order: str) -> list[int]:
    """The objects from the farthest to the nearest, see `ScalingConfig.order`."""
    keys = {
        "given": lambda i: 0,
        "size": lambda i: -int(masks[i].sum()),
        "depth": lambda i: box_of(masks[i])[3],
    }
    return sorted(range(len(masks)), key=keys[order])


def compose(
    picture: Picture,
    background: Picture,
    alphas: Sequence[NDArray[np.float32]],
    factors: Sequence[float],
    places: Sequence[Placed],
    order: Sequence[int],
) -> tuple[Picture, NDArray[np.bool_]]:
    """Put objects of new sizes onto a background, by `lse_core.objects.scale_objects`.

    Where no object is seen, pixels are those of the background, and where an object of factor 1 is opaque
    they are those of the picture.

    Args:
        picture: (H, W, 3), where the objects are taken from.
        background: (H, W, 3).
        alphas: opacity (H, W) of each object in `picture`.
        factors: by which each is resized.
        places: where each goes.
        order: from the farthest to the nearest.

    Returns:
        The new picture, and masks (K, H, W) that say where each object is seen.
    """
    height, width = picture.shape[:2]
    # objects go on beyond the picture as they are at its edge, or those that are cut off would fade there
    pad = math.ceil(max(1.0, 1.0 / min(factors))) + 1
    sides = [box_of(alpha > 0) for alpha in alphas] + [placed.box for placed in places]
    left, top = (max(0, math.floor(min(side[i] for side in sides)) - 3 * pad) for i in (0, 1))
    right = min(width, math.ceil(max(side[2] for side in sides)) + 3 * pad)
    bottom = min(height, math.ceil(max(side[3] for side in sides)) + 3 * pad)
    window = (slice(top, bottom), slice(left, right))

    def tensor(array: NDArray) -> torch.Tensor:
        edges = ((pad, pad), (pad, pad), *((0, 0),) * (array.ndim - 2))
        return torch.from_numpy(np.pad(array[window], edges, mode="edge").astype(np.float32))

    centres = torch.tensor([placed.fixed for placed in places], dtype=torch.float32)
    centres = centres - torch.tensor([left, top], dtype=torch.float32) + (pad - 0.5)
    made = scale_objects(
        tensor(picture).permute(2, 0, 1)[None],
        torch.stack([tensor(alpha) for alpha in alphas])[None],
        torch.tensor(list(factors), dtype=torch.float32),
        background=tensor(background).permute(2, 0, 1)[None],
        order=order,
        centres=centres[None],
    )
    inside = (slice(pad, -pad), slice(pad, -pad))
    out = background.copy()
    out[window] = made.image[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()[inside]
    seen = np.zeros((len(alphas), height, width), dtype=bool)
    seen[:, window[0], window[1]] = made.masks[0].numpy()[:, inside[0], inside[1]]
    return out, seen
