"""Consistency under local scaling as metrics of mmengine, for any number of processes and batch size."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from numpy.typing import NDArray
from torch import Tensor

from lse_core.errors import LSEError, unknown_name
from lse_core.metrics import equivariance_error
from lse_core.resample import scale
from lse_seg.random_warps import RandomWarps

__all__ = ["OUTPUTS", "EquivarianceError", "IoUPerScale", "as_output"]

OUTPUTS = ("softmax", "logits")

Ask = Callable[[dict[str, Any]], Sequence[Any]]
"""Gives predictions (data samples with `seg_logits`) for a batch as the data loader makes it."""


@METRICS.register_module()
class EquivarianceError(BaseMetric):
    """EquE, Eq. 23: the mean over images and warps of ||S(M(I); Phi) - M(S(I; Phi))||^2.

    M(I) is what the model predicted for the batch; for M(S(I; Phi)) the metric warps the batch's images and
    asks the model once more. The hook `EquivarianceHook` gives it the model, so a config needs both:

        test_evaluator = [dict(type="IoUMetric"), dict(type="EquivarianceError")]
        custom_hooks = [dict(type="EquivarianceHook")]

    An image's warps follow from `seed` and its file name alone, so neither the number of processes nor the
    batch size nor the order changes the result, and models are compared on the same warps.

    Args:
        draws: warps an image.
        seed: of the warps.
        output: what M is: "softmax", probabilities of the classes, or "logits". Logits can be made small
            without another prediction; probabilities compare models.
        per_element: divide each image's error by the number of its elements, so that sizes compare; with
            False it is the sum over pixels and classes, as Eq. 23 has it.
        collect_device: of mmengine's `BaseMetric`.
        prefix: of the name in the log.
        collect_dir: of mmengine's `BaseMetric`.
        settings: of `RandomWarps`; "separable" warps are drawn from the "uniform" distribution unless it
            says otherwise.

    Raises:
        LSEError: a setting that does not exist or is out of its range.
    """

    default_prefix = "consistency"

    def __init__(
        self,
        draws: int = 1,
        seed: int = 0,
        output: str = "softmax",
        per_element: bool = True,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if draws < 1 or seed < 0:
            raise LSEError(f"EquivarianceError: draws must be at least 1 and seed 0; got {draws} and {seed}")
        if output not in OUTPUTS:
            raise unknown_name("output", output, OUTPUTS)
        if settings.get("warp", "separable") == "separable":
            settings.setdefault("distribution", "uniform")
        self.draws, self.seed, self.output, self.per_element = draws, seed, output, per_element
        self.warps = RandomWarps(**settings)
        self.ask: Ask | None = None

    @torch.no_grad()
    def process(self, data_batch: dict[str, Any], data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch.

        Args:
            data_batch: as the loader makes it: `inputs`, images (C, H, W) before the preprocessor.
            data_samples: the predictions for it with `seg_logits` (classes, H', W').

        Raises:
            LSEError: nobody gave the model; test-time augmentation; predictions without logits.
        """
        if self.ask is None:
            raise LSEError(
                "EquivarianceError needs the model: add dict(type='EquivarianceHook') to custom_hooks"
            )
        images = list(data_batch["inputs"])
        if not all(isinstance(image, Tensor) for image in images):
            raise LSEError("EquivarianceError does not support test-time augmentation; test without it")
        names = [Path(sample["img_path"]).name for sample in data_samples]
        errors = torch.zeros(len(images), dtype=torch.float64)
        for draw in range(self.draws):
            warps = [self.warps.draw(1, self._seed(name, draw)) for name in names]
            scaled = [
                scale(image[None].float(), warp.to(image.device))[0]
                for image, warp in zip(images, warps, strict=True)
            ]
            answers = self.ask({**data_batch, "inputs": scaled})
            for i, (sample, answer, warp) in enumerate(zip(data_samples, answers, warps, strict=True)):
                plain, moved = self._output(sample), self._output(answer)
                errors[i] += equivariance_error(
                    plain, moved, warp.to(plain.device), per_element=self.per_element
                ).cpu()
        # one number an image: what several processes see twice is dropped when they are collected
        self.results.extend((errors / self.draws).tolist())

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """EquE over all images."""
        return {"EquE": float(np.mean(results))}

    def _seed(self, name: str, draw: int) -> int:
        return zlib.crc32(f"{self.seed}/{draw}/{name}".encode())

    def _output(self, sample: Mapping[str, Any]) -> Tensor:
        found = sample.get("seg_logits")
        if found is None:
            raise LSEError("EquivarianceError needs predictions with seg_logits, but this model returns none")
        return as_output(found["data"] if isinstance(found, Mapping) else found.data, self.output)[None]


def as_output(logits: Tensor, output: str, dim: int = 0) -> Tensor:
    """Logits, or their probabilities, in float32 or more.

    A single class has its probability already, as mmsegmentation's postprocessing leaves it.

    Args:
        logits: classes along `dim`.
        output: one of `OUTPUTS`.
        dim: the axis of the classes.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.softmax(dim) if output == "softmax" and logits.shape[dim] > 1 else logits


@METRICS.register_module()
class IoUPerScale(BaseMetric):
    """mIoU by the factor of the resized object, its deviation over factors, and that of single images.

    Intersections and unions are summed over the images of a factor before they are divided, as mIoU over
    a data set is. Factors come from the meta information, see `ScaledObjectsDataset`: `PackSegInputs` must
    be told to keep them, dict(type="PackSegInputs", meta_keys=(..., "local_scale", "base_image")).

    Gives in percent: `mIoU` over everything; `mIoU_0.5` and so on; `mIoU_mean`, the mean over factors;
    `mIoU_std`, their standard deviation (of the population, as lse_core's accuracies have it); where base
    images are known, `base_std`, the standard deviation over the factors of one base image, averaged over
    base images.

    Args:
        ignore_index: label of pixels that do not count.
        collect_device: of mmengine's `BaseMetric`.
        prefix: of the names in the log.
        collect_dir: of mmengine's `BaseMetric`.
    """

    default_prefix = "scale"

    def __init__(
        self,
        ignore_index: int = 255,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.ignore_index = ignore_index

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of predictions with `pred_sem_seg`, `gt_sem_seg` and `local_scale`.

        Raises:
            LSEError: no factor in the meta information.
        """
        classes = len((self.dataset_meta or {})["classes"])
        for sample in data_samples:
            if "local_scale" not in sample:
                raise LSEError(
                    "IoUPerScale finds no local_scale: read a ScaledObjectsDataset, and add 'local_scale' "
                    "and 'base_image' to the meta_keys of PackSegInputs"
                )
            found = sample["pred_sem_seg"]["data"].squeeze(0)
            truth = sample["gt_sem_seg"]["data"].squeeze(0).to(found.device)
            areas = IoUMetric.intersect_and_union(found, truth, classes, self.ignore_index)[:2]
            counted = np.stack([area.double().numpy() for area in areas])
            self.results.append((float(sample["local_scale"]), sample.get("base_image"), counted))

    def compute_metrics(self, results: list[tuple[float, str | None, NDArray[Any]]]) -> dict[str, float]:
        """The numbers named above."""
        per_scale: dict[float, NDArray[Any]] = {}
        per_base: dict[str, list[float]] = defaultdict(list)
        for factor, base, areas in results:
            per_scale[factor] = per_scale.get(factor, 0.0) + areas
            if base is not None:
                per_base[base].append(_mean_iou(areas))
        by_scale = {factor: _mean_iou(per_scale[factor]) for factor in sorted(per_scale)}
        values = list(by_scale.values())
        out = {"mIoU": _mean_iou(sum(per_scale.values()))}
        out.update({f"mIoU_{factor:g}": value for factor, value in by_scale.items()})
        out.update(mIoU_mean=float(np.mean(values)), mIoU_std=float(np.std(values)))
        if per_base:
            out["base_std"] = float(np.mean([np.std(each) for each in per_base.values()]))
        return out


def _mean_iou(areas: Any) -> float:
    """Percent, over the classes that are there or were predicted; NaN where all is ignored."""
    intersection, union = areas
    seen = union > 0
    return float(100.0 * np.mean(intersection[seen] / union[seen])) if seen.any() else float("nan")
