"""How well an object was cut out and put back: numbers in [0, 1], of which the least is the quality."""

from __future__ import annotations

import math

import cv2
import numpy as np

from lse_data.scaling.stages import Box, Mask, Picture

__all__ = ["BOUND", "agreement", "area", "in_one_piece", "made_solid", "smoothness"]

BOUND = 2
"""Of 255: by so much a picture may differ from its recomposition at factor 1, outside of the seam."""

LEAST_SHARE, LEAST_BACKGROUND, LEAST_FILL = 0.002, 0.1, 0.2


def made_solid(mask: Mask) -> Mask:
    """The mask (H, W) without holes, and without parts of less than a hundredth of its area."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    full = np.zeros(mask.shape, dtype=np.uint8)
    cv2.drawContours(full, outlines, -1, (1,), cv2.FILLED)
    count, parts, told, _ = cv2.connectedComponentsWithStats(full)
    least = full.sum() / 100
    return np.isin(parts, [i for i in range(1, count) if told[i, cv2.CC_STAT_AREA] >= least])


def area(mask: Mask, box: Box | None) -> float:
    """Whether an object has a plausible size; 1 is plausible.

    Less where it covers less than 0.002 of the picture, leaves less than 0.1 of it, or covers less than 0.2
    of the box in which it was found.
    """
    share = float(mask.mean())
    told = min(share / LEAST_SHARE, (1.0 - share) / LEAST_BACKGROUND)
    if box is not None:
        height, width = mask.shape
        inside = max(1.0, min(box[2], width) - max(box[0], 0.0)) * max(
            1.0, min(box[3], height) - max(box[1], 0.0)
        )
        told = min(told, float(mask.sum()) / inside / LEAST_FILL)
    return min(1.0, told)


def smoothness(mask: Mask) -> float:
    """Intersection over union of a mask with itself after closing, filling its holes and opening.

    The discs of the two have a radius of 0.04 times the square root of the mask's area. Ragged outlines,
    specks and holes make it small.
    """
    radius = max(1, round(0.04 * math.sqrt(mask.sum())))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # beyond the picture an object goes on, so that an edge that cuts it off is no rough outline
    wide = np.pad(mask.astype(np.uint8), 2 * radius, mode="edge")
    closed = made_solid(cv2.morphologyEx(wide, cv2.MORPH_CLOSE, kernel) > 0)
    smooth = cv2.morphologyEx(closed.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
    inner = smooth[2 * radius : -2 * radius, 2 * radius : -2 * radius]
    return float((mask & inner).sum() / max(1, (mask | inner).sum()))


def in_one_piece(mask: Mask) -> float:
    """The share of a mask's area that its largest connected part has."""
    _, _, told, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return float(told[1:, cv2.CC_STAT_AREA].max(initial=0) / max(1, mask.sum()))


def agreement(picture: Picture, again: Picture, seam: Mask) -> tuple[int, float]:
    """How far a recomposition at factor 1 is from its picture, both (H, W, 3).

    Args:
        picture: the picture.
        again: the picture that was composed of its background and its objects in their own size.
        seam: (H, W), where the background was filled in and no object is opaque.

    Returns:
        The largest difference outside of the seam, and the mean one within it, both of 255.
    """
    differ = np.abs(picture.astype(np.int16) - again)
    outside, inside = differ[~seam], differ[seam]
    return int(outside.max(initial=0)), float(inside.mean()) if inside.size else 0.0
