"""A training batch, and what a method is: an object that computes the losses to be minimised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lse_core.errors import ShapeError
from lse_core.random import random_log_slopes
from lse_core.separable import SeparableWarp

__all__ = ["Batch", "Method"]


@dataclass(frozen=True, eq=False)
class Batch:
    """The part of an optimiser step's images that this process sees at once.

    Random numbers are drawn for the whole step and then shared out (`share`), so that the number of
    processes does not change what happens to an image.

    Attributes:
        images: (b, C, H, W) float, normalised and augmented, on the model's device.
        plain: the same images before augmentation, normalised.
        labels: (b,) int64, -1 where a data set has none.
        targets: (b,) int64, or (b, classes) float where labels are mixed or smoothed.
        rows: (b,) int64 on the CPU: places of these images in the step's batch.
        total: images in the step's batch.
        step: number of the optimiser step, from 0.
    """

    images: Tensor
    plain: Tensor
    labels: Tensor
    targets: Tensor
    rows: Tensor
    total: int
    step: int

    def share(self, drawn: Tensor) -> Tensor:
        """This batch's rows of numbers drawn on the CPU for the whole step, (total, ...) to (b, ...)."""
        if drawn.shape[0] != self.total:
            raise ShapeError(f"draw for all {self.total} images of the step, then share; got {len(drawn)}")
        return drawn[self.rows].to(self.images.device)

    def random_warp(
        self,
        generator: torch.Generator,
        ratio: float = 2.0,
        segments: int = 4,
        distribution: str = "log_uniform",
    ) -> SeparableWarp:
        """Random warps for these images, batch b, from the step's `generator`; see `random_log_slopes`."""
        drawn = random_log_slopes(self.total, segments, ratio, distribution=distribution, generator=generator)
        return SeparableWarp.from_log_slopes(self.share(drawn))

    def task_loss(self, outputs: Tensor) -> Tensor:
        """Mean cross-entropy of class scores (b, classes), logits or log-probabilities, to `targets`."""
        return F.cross_entropy(outputs, self.targets)


class Method(Protocol):
    """The losses that a run minimises, besides Eq. 5 for the canonicalizers, which the run adds itself."""

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Named losses of a batch, already weighted: their sum is minimised, each is logged.

        Called once a batch; `model` may be called any number of times and answers with class scores
        (b, classes). While it runs, canonicalizers take no gradient (unless
        `canonicalizer.task_gradient` is set). Losses are means over `batch`'s images.

        Args:
            model: the model in training mode, adapted or not.
            batch: the images.
            generator: on the CPU, seeded by (seed, step): draw for `batch.total` images and `share`.
        """
        ...
