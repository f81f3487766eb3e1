"""Local scaling of images and their label maps in mmsegmentation's pipelines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from numpy.typing import NDArray
from torch import Tensor

from lse_core.errors import LSEError, ShapeError, unknown_name
from lse_core.objects import scale_objects
from lse_core.resample import scale, unscale
from lse_seg.random_warps import RandomWarps, Warp

__all__ = ["RandomMonotoneScaling", "ScaleObjects"]

CONVENTIONS = ("scale", "unscale")


@TRANSFORMS.register_module()
class RandomMonotoneScaling(BaseTransform):
    """Warp an image and all its label maps by one random monotone scaling (Aug of section 5.1).

    Images are interpolated, label maps take the nearest pixel of the very same coordinates: a label is
    never mixed with another, and a pixel is ignored afterwards exactly where its source was. Sizes stay,
    and no padding comes in, since warps keep the border. Draws follow torch's random numbers, which
    loaders seed in every worker.

    Required keys: img; those in seg_fields. Modified: the same. Added: monotone_warp, the warp (batch 1)
    where one was applied.

    Args:
        prob: of warping an image, within [0, 1].
        convention: "scale", S: where the slope of the warp exceeds 1 the image grows; "unscale", S^-1.
        antialias: average where the image shrinks, instead of reading two pixels (separable warps only).
        settings: of `RandomWarps`: `warp` ("separable"), `ratio` (2), `segments` (4), ...

    Raises:
        LSEError: a setting that does not exist or is out of its range.
    """

    def __init__(
        self, prob: float = 0.5, *, convention: str = "scale", antialias: bool = False, **settings: Any
    ) -> None:
        if not 0.0 <= prob <= 1.0:
            raise LSEError(f"RandomMonotoneScaling: prob must lie within [0, 1], not {prob}")
        if convention not in CONVENTIONS:
            raise unknown_name("convention", convention, CONVENTIONS)
        self.prob, self.convention, self.antialias = prob, convention, antialias
        self.warps = RandomWarps(**settings)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Warp what is in `results`: img (H, W, C) or (H, W), maps (H, W)."""
        if float(torch.rand(())) >= self.prob:
            return results
        warp = self.warps.draw(1)
        results["img"] = self._image(results["img"], warp)
        for name in results.get("seg_fields", []):
            results[name] = self._map(results[name], warp, results["img"].shape[:2], name)
        results["monotone_warp"] = warp
        return results

    def _apply(self, x: Tensor, warp: Warp, **options: Any) -> Tensor:
        return (scale if self.convention == "scale" else unscale)(x, warp, **options)

    def _image(self, image: NDArray[Any], warp: Warp) -> NDArray[Any]:
        x = _channels_first(image)
        return _like(self._apply(x, warp, antialias=self.antialias)[0], image)

    def _map(self, labels: NDArray[Any], warp: Warp, shape: tuple[int, ...], name: str) -> NDArray[Any]:
        if labels.shape[:2] != shape:
            raise ShapeError(
                f"RandomMonotoneScaling: {name} {labels.shape[:2]} is of another size than the image "
                f"{shape}; put it behind the steps that resize and crop"
            )
        # indices, which are exact whatever the dtype of the map
        where = torch.arange(labels[..., 0].size if labels.ndim == 3 else labels.size).view(1, *shape)
        chosen = self._apply(where, warp)[0].numpy()
        return labels.reshape(-1, *labels.shape[2:])[chosen]

    def __repr__(self) -> str:
        return f"RandomMonotoneScaling(prob={self.prob}, convention={self.convention!r}, {self.warps!r})"


@TRANSFORMS.register_module()
class ScaleObjects(BaseTransform):
    """Resize labelled objects about their own centres, the background held fixed (Fig. 1, section 5.1).

    Objects are the connected regions of a class, or all of a class together. What covers what is drawn
    at random. Pixels that an object leaves are filled smoothly from around it; nobody knows what was
    there, so they are ignored unless the data set has a background class. Ignored pixels stay where they
    are, but for those that an object comes to cover. Draws follow torch's random numbers.

    Required keys: img, gt_seg_map. Modified: img, and all maps in seg_fields: maps other than gt_seg_map
    take the value of the pixel that moved there, and `ignore_index` where a pixel was left.
    Added: object_factors, one number an object.

    Args:
        factors: range of the factors, which are uniform in their logarithm.
        prob: of changing an image, within [0, 1].
        classes: labels whose objects are resized; None takes all but the background and `ignore_index`.
        background: label of the background, or None where there is none (ADE20K, Cityscapes).
        ignore_index: the label that is ignored.
        regions: take the connected regions of a class as objects; False takes a class as one object.
        min_area: smallest object in pixels; smaller ones stay.
        max_objects: objects resized in one image, drawn at random where there are more.

    Raises:
        LSEError: a setting out of its range.
    """

    def __init__(
        self,
        factors: tuple[float, float] = (0.7, 1.4),
        prob: float = 0.5,
        *,
        classes: Sequence[int] | None = None,
        background: int | None = None,
        ignore_index: int = 255,
        regions: bool = True,
        min_area: int = 16,
        max_objects: int = 8,
    ) -> None:
        low, high = factors
        if not 0.0 <= prob <= 1.0 or not 0.0 < low <= high < float("inf"):
            raise LSEError(
                "ScaleObjects: prob must lie within [0, 1] and factors be a range above 0; "
                f"got {prob} and {low:g} to {high:g}"
            )
        if min_area < 1 or max_objects < 1:
            raise LSEError(
                f"ScaleObjects: min_area and max_objects must be at least 1; got {min_area}, {max_objects}"
            )
        self.factors, self.prob = (low, high), prob
        self.classes = None if classes is None else frozenset(classes)
        self.background, self.ignore_index, self.regions = background, ignore_index, regions
        self.min_area, self.max_objects = min_area, max_objects

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize objects of `results`: img (H, W, C) or (H, W), gt_seg_map and other maps (H, W)."""
        if float(torch.rand(())) >= self.prob:
            return results
        labels = results["gt_seg_map"]
        if labels.shape != results["img"].shape[:2]:
            raise ShapeError(
                f"ScaleObjects: gt_seg_map {labels.shape} is of another size than the image "
                f"{results['img'].shape[:2]}; put it behind the steps that resize and crop"
            )
        objects = self._objects(labels)
        if not objects:
            return results
        chosen = torch.randperm(len(objects))[: self.max_objects].tolist()  # also from far to near
        kinds = [objects[i][0] for i in chosen]
        masks = torch.from_numpy(np.stack([objects[i][1] for i in chosen]))[None]
        low, high = (math.log(f) for f in self.factors)
        factors = torch.empty(len(kinds)).uniform_(low, high).exp()
        moved = scale_objects(_channels_first(results["img"]), masks, factors[None])
        results["img"] = _like(moved.image[0], results["img"])
        seen, revealed = moved.masks[0].numpy(), moved.revealed[0].numpy()
        source = _sources(moved.flow[0])
        for name in results.get("seg_fields", ["gt_seg_map"]):
            old = results[name]
            new = old[source]
            new[revealed] = self._left(name, old)
            if name == "gt_seg_map":  # an edge pixel's source may lie beside the object
                for kind, mask in zip(kinds, seen, strict=True):
                    new[mask] = kind
            results[name] = new
        results["object_factors"] = factors.numpy()
        return results

    def _left(self, name: str, labels: NDArray[Any]) -> Any:
        """What a pixel is that an object has left."""
        known = name == "gt_seg_map" and self.background is not None
        return labels.dtype.type(self.background if known else self.ignore_index)

    def _objects(self, labels: NDArray[Any]) -> list[tuple[int, NDArray[np.bool_]]]:
        """Labels and masks of the objects that are large enough."""
        found = []
        for kind in np.unique(labels).tolist():
            wanted = kind != self.background if self.classes is None else kind in self.classes
            if kind == self.ignore_index or not wanted:
                continue
            mask = labels == kind
            if self.regions:
                count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
                found += [(kind, parts == part) for part in range(1, count)]
            else:
                found.append((kind, mask))
        return [(kind, mask) for kind, mask in found if mask.sum() >= self.min_area]

    def __repr__(self) -> str:
        return (
            f"ScaleObjects(factors={self.factors}, prob={self.prob}, background={self.background}, "
            f"ignore_index={self.ignore_index}, regions={self.regions})"
        )


def _sources(flow: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels that content came from, (H, W) each, by a flow (H, W, 2)."""
    h, w = flow.shape[:2]
    rows, cols = np.indices((h, w))
    x, y = flow.round().long().numpy().transpose(2, 0, 1)
    return (rows + y).clip(0, h - 1), (cols + x).clip(0, w - 1)


def _channels_first(image: NDArray[Any]) -> Tensor:
    """(H, W, C) or (H, W) of any dtype as float (1, C, H, W)."""
    planes = image if image.ndim == 3 else image[..., None]
    dtype = np.float64 if image.dtype == np.float64 else np.float32
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1), dtype=dtype))[None]


def _like(x: Tensor, image: NDArray[Any]) -> NDArray[Any]:
    """(C, H, W) in the shape and dtype of `image`; integers are rounded and kept in their range."""
    out = x.permute(1, 2, 0).numpy()
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        out = out.round().clip(limits.min, limits.max)
    return np.ascontiguousarray(out.astype(image.dtype)).reshape(image.shape)
