"""Pictures with one object resized: cut out, background filled in, resized and pasted, by OpenCV.

The same change as `lse_core.objects.scale_objects`, which is differentiable and works on batches of small
pictures; here pictures have their full size, and every view costs milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lse_core.errors import DataError

__all__ = ["Cutout", "cut_out", "filled_in", "fixed_point", "hole_around", "mask_in_box"]

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]

ROUNDS = 5  # of GrabCut; more change hardly anything
GRAB = 384  # pixels a side of what GrabCut looks at; it takes seconds on whole photographs
MARGIN = 5  # pixels around an object that are filled in too: its edge is blurred into them
REACH = 5  # pixels from which OpenCV fills in a pixel


def mask_in_box(picture: Picture, box: Box) -> Mask:
    """The object in a box, by GrabCut.

    Args:
        picture: (H, W, 3).
        box: left, top, right and bottom in pixels; parts outside of the picture do not count.

    Returns:
        (H, W); the whole box where GrabCut finds no object in it.

    Raises:
        DataError: the box lies outside of the picture, or has no area.
    """
    height, width = picture.shape[:2]
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(width, round(box[2])), min(height, round(box[3]))
    if right - left < 2 or bottom - top < 2:
        raise DataError(
            f"the box {tuple(round(side) for side in box)} lies outside of the picture of "
            f"{width} x {height} pixels, or has no area"
        )
    whole = np.zeros((height, width), dtype=bool)
    whole[top:bottom, left:right] = True
    # as much of the surroundings as the box has on either side tells what is background
    x, y = (right - left) // 2, (bottom - top) // 2
    near = (slice(max(0, top - y), bottom + y), slice(max(0, left - x), right + x))
    inside = whole[near]
    if inside.all():  # nothing is left that must be background
        return whole
    h, w = inside.shape
    share = min(1.0, GRAB / max(h, w))
    size = (max(2, round(w * share)), max(2, round(h * share)))
    seen = cv2.resize(picture[near], size, interpolation=cv2.INTER_AREA)
    marks = np.full((size[1], size[0]), cv2.GC_BGD, dtype=np.uint8)
    marks[cv2.resize(inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0] = cv2.GC_PR_FGD
    cv2.setRNGSeed(0)  # GrabCut begins with random clusters of colours
    models = np.zeros((2, 1, 65))
    try:
        cv2.grabCut(seen, marks, (0, 0, 1, 1), models[0], models[1], ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels to tell colours apart
        return whole
    found = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    mask = np.zeros_like(whole)
    mask[near] = cv2.resize(found.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR) > 0.5
    mask &= whole
    return mask if mask.sum() >= 0.05 * whole.sum() else whole


@dataclass(frozen=True)
class Cutout:
    """An object and the picture without it.

    Attributes:
        background: (H, W, 3), the picture with the object's place filled in.
        patch: (h, w, 3) float32, the object's bounding box, colours times `alpha`.
        alpha: (h, w) float32 in {0, 1}, its mask.
        corner: left and top of the bounding box in pixels.
        fixed: x and y of the point that stays, in pixels from the left and top edges of the picture.
    """

    background: Picture
    patch: NDArray[np.float32]
    alpha: NDArray[np.float32]
    corner: tuple[int, int]
    fixed: tuple[float, float]

    def resized(self, x: float, y: float) -> Picture:
        """The picture (H, W, 3) with the object `x` times as wide and `y` times as high.

        Sizes and places are whole pixels, so at 1 every pixel of the object is where it was.
        """
        height, width = self.background.shape[:2]
        h, w = max(1, round(self.alpha.shape[0] * y)), max(1, round(self.alpha.shape[1] * x))
        left = round(self.fixed[0] + (self.corner[0] - self.fixed[0]) * x)
        top = round(self.fixed[1] + (self.corner[1] - self.fixed[1]) * y)
        patch, alpha = _resize(self.patch, w, h), _resize(self.alpha, w, h)[..., None]
        rows, columns = slice(max(0, top), min(height, top + h)), slice(max(0, left), min(width, left + w))
        inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        out = self.background.copy()
        under = out[rows, columns] * (1.0 - alpha[inside])
        out[rows, columns] = (under + patch[inside]).round().clip(0, 255).astype(np.uint8)
        return out

    def silhouette(self, x: float, y: float) -> Picture:
        """Where `resized` shows the object: the picture (H, W, 3), white where it is and black elsewhere."""
        white = 255.0 * np.repeat(self.alpha[..., None], 3, axis=2)
        return replace(self, background=np.zeros_like(self.background), patch=white).resized(x, y)


def cut_out(picture: Picture, mask: Mask) -> Cutout:
    """Take an object out of its picture.

    The point that stays is the middle of the object's bounding box; along an axis where the box touches one
    edge of the picture it is that edge, so that an object that is cut off there stays so.

    Args:
        picture: (H, W, 3).
        mask: (H, W), where the object is.

    Raises:
        DataError: the mask is empty, or leaves nothing of the picture from which to fill in its place.
    """
    box = _extent(mask)
    hole = hole_around(mask)
    alpha = mask[box].astype(np.float32)
    return Cutout(
        background=filled_in(picture, hole),
        patch=picture[box].astype(np.float32) * alpha[..., None],
        alpha=alpha,
        corner=(box[1].start, box[0].start),
        fixed=fixed_point(mask),
    )


def hole_around(mask: Mask, margin: int = MARGIN) -> Mask:
    """What is to be filled in where an object (H, W) is taken away: its place and `margin` pixels around it.

    Raises:
        DataError: nothing of the picture is left from which to fill it in.
    """
    side = 2 * margin + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    hole = cv2.dilate(mask.astype(np.uint8), kernel) > 0
    if hole.all():
        raise DataError("the mask covers the whole picture, so there is no background")
    return hole


def filled_in(
    picture: Picture, hole: Mask, *, reach: int = REACH, method: int = cv2.INPAINT_TELEA
) -> Picture:
    """The picture (H, W, 3) with `hole` (H, W) filled in from around it, by OpenCV.

    Args:
        reach: pixels from which a pixel is filled in.
        method: a constant of OpenCV, `cv2.INPAINT_TELEA` or `cv2.INPAINT_NS`.
    """
    return cv2.inpaint(picture, hole.astype(np.uint8), reach, method).astype(np.uint8, copy=False)


def fixed_point(mask: Mask, *, foot: bool = False) -> tuple[float, float]:
    """The point of an object (H, W) that stays when it is resized, as `Cutout.fixed` gives it.

    Args:
        foot: the middle of the bounding box's lower side, in the place of the box's middle. Along an axis
            where the box touches one edge of the picture it is that edge all the same.

    Raises:
        DataError: the mask is empty.
    """
    rows, columns = _extent(mask)
    y = _anchor(rows, mask.shape[0])
    if foot and rows.start > 0:
        y = float(rows.stop)
    return _anchor(columns, mask.shape[1]), y


def _extent(mask: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise DataError("the mask is empty")
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _anchor(side: slice, size: int) -> float:
    first, last = side.start == 0, side.stop == size
    if first != last:
        return 0.0 if first else float(size)
    return (side.start + side.stop) / 2


def _resize(array: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """One axis after the other, since shrinking needs averages and growing needs interpolation."""
    for size in ((width, array.shape[0]), (width, height)):
        before = (array.shape[1], array.shape[0])
        if before != size:
            kind = cv2.INTER_AREA if size < before else cv2.INTER_LINEAR  # one of the two sides differs
            array = cv2.resize(array, size, interpolation=kind).astype(np.float32, copy=False)
    return array
