"""Hooks of mmengine: the model for the metric that asks twice, and pictures of what a canonicalizer does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine import fileio
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner.amp import autocast
from mmseg.registry import HOOKS
from numpy.typing import NDArray
from torch import Tensor

from lse_core.errors import LSEError
from lse_core.pictures import overlay
from lse_dec.monitor import displacement
from lse_dec.observation import Observation, observe
from lse_dec.sites import CanonicalizedStage
from lse_seg.backbone import CanonicalizedBackbone
from lse_seg.metrics import EquivarianceError
from lse_seg.panels import canonical_picture, draw_warp, row

__all__ = ["EquivarianceHook", "WarpVisualizationHook"]

Panel = tuple[str, NDArray[np.uint8]]
"""A caption and a picture."""


@HOOKS.register_module()
class EquivarianceHook(Hook):
    """Gives the model to every `EquivarianceError` of the running validation or test loop.

    The second question is asked as the loop asks the first: the same weights (an EMA's too) and, where the
    loop runs in half precision, under the same autocast.
    """

    def before_val_epoch(self, runner: Any) -> None:
        """Give it to the metrics of the validation loop."""
        self._give(runner, runner.val_loop, "val_step")

    def before_test_epoch(self, runner: Any) -> None:
        """Give it to the metrics of the test loop."""
        self._give(runner, runner.test_loop, "test_step")

    def _give(self, runner: Any, loop: Any, step: str) -> None:
        def ask(batch: dict[str, Any]) -> Any:
            with autocast(enabled=getattr(loop, "fp16", False)):
                return getattr(runner.model, step)(batch)

        for metric in getattr(loop.evaluator, "metrics", ()):
            if isinstance(metric, EquivarianceError):
                metric.ask = ask


@HOOKS.register_module()
class WarpVisualizationHook(Hook):
    """Draws image, truth and prediction, and for every canonicalizer its warp and the canonical image.

    Pictures go to mmengine's visualizer and so to every backend it has (files, TensorBoard, ...). The
    yellow lines on the image are those that an even grid in the canonical form comes from: where they are
    close the canonical image is enlarged. A canonicalizer within the backbone sees features, not the image;
    its warp is shown on the image all the same. Sliding windows have a warp each, so there none is drawn.

    Args:
        interval: batches between pictures; the first batch is drawn.
        images: of a batch, the first ones are drawn.
        lines: of the grid, each way.
        backend_args: of mmengine's file client, which reads the images.

    Raises:
        LSEError: a number below its least.
    """

    def __init__(
        self, interval: int = 50, images: int = 1, lines: int = 9, backend_args: dict[str, Any] | None = None
    ) -> None:
        if interval < 1 or images < 1 or lines < 2:
            raise LSEError(
                "WarpVisualizationHook: interval and images must be at least 1, lines at least 2; "
                f"got {interval}, {images}, {lines}"
            )
        self.interval, self.images, self.lines = interval, images, lines
        self.backend_args = backend_args

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw after a validation batch."""
        self._draw(runner, batch_idx, data_batch, outputs, "val")

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw after a test batch."""
        self._draw(runner, batch_idx, data_batch, outputs, "test")

    def _draw(
        self, runner: Any, batch_idx: int, batch: Mapping[str, Any], outputs: Sequence[Any], mode: str
    ) -> None:
        if batch_idx % self.interval or not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        fp16 = getattr(getattr(runner, f"{mode}_loop"), "fp16", False)
        for i, output in enumerate(outputs[: self.images]):
            one = {"inputs": [batch["inputs"][i]], "data_samples": [batch["data_samples"][i]]}
            seen: dict[str, Observation] = {}
            sites = _sites(model)
            if sites:
                with observe(sites, first=True) as seen, torch.no_grad(), autocast(enabled=fp16):
                    model.test_step(one)
            panels = self._panels(output, runner.visualizer.dataset_meta or {}, seen)
            runner.visualizer.add_image(f"{mode}_{Path(output.img_path).stem}", row(panels), step=runner.iter)

    def _panels(self, output: Any, meta: Mapping[str, Any], seen: Mapping[str, Observation]) -> list[Panel]:
        data = fileio.get(output.img_path, backend_args=self.backend_args)
        image = mmcv.imfrombytes(data, channel_order="rgb")
        classes, colours = meta.get("classes", ("",)), np.array(meta.get("palette", []), dtype=np.uint8)
        bare = 0 if classes[0] == "background" else None
        panels = [("image", image)]
        for caption, name in (("truth", "gt_sem_seg"), ("prediction", "pred_sem_seg")):
            labels = output.get(name)
            if labels is not None:
                painted = overlay(image, _map(labels.data, image), colours.reshape(-1, 3), bare=bare)
                panels.append((caption, painted))
        for name, found in seen.items():
            height, width = image.shape[:2]
            x, y = displacement(found)[0].amax(dim=1).tolist()
            furthest = max(x * (width - 1), y * (height - 1))
            caption = f"{name}: moves {furthest:.1f} px"
            panels.append((caption, draw_warp(image, found.warp, self.lines)))
            panels.append((f"{name}: canonical", canonical_picture(image, found.warp)))
        return panels


def _map(labels: Tensor, image: NDArray[np.uint8]) -> NDArray[Any]:
    """Labels (1, H, W) at the size of the image."""
    found = labels.squeeze(0).long().cpu().numpy()
    if found.shape == image.shape[:2]:
        return found
    resized: NDArray[Any] = mmcv.imresize(found.astype(np.uint8), image.shape[1::-1], interpolation="nearest")
    return resized


def _sites(model: Any) -> Mapping[str, CanonicalizedStage]:
    """Canonicalized stages of a segmentor by name; none where each window has its own."""
    if (getattr(model, "test_cfg", None) or {}).get("mode") == "slide":
        return {}
    sites = getattr(model, "sites", None)
    if sites is None:
        backbone = getattr(model, "backbone", None)
        sites = backbone.adapted.sites if isinstance(backbone, CanonicalizedBackbone) else {}
    found: Mapping[str, CanonicalizedStage] = sites
    return found
