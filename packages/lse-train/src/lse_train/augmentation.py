"""Training images: normalised, warped, erased, mixed; every draw follows from (seed, step, image)."""

from __future__ import annotations

import torch
from timm.data.mixup import Mixup, mixup_target
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from lse_core.preprocess import Preprocess
from lse_core.random import random_log_slopes
from lse_core.resample import scale
from lse_core.separable import SeparableWarp
from lse_train.batch import Batch
from lse_train.config import Augment
from lse_train.seeding import generator, global_draws

__all__ = ["Augmentation"]


class Augmentation:
    """Makes batches out of raw images.

    Args:
        settings: what happens to them.
        preprocess: how the model wants its images normalised.
        classes: number of classes, for mixed and smoothed labels.
        seed: the run's.
        dtype: of the images.
    """

    def __init__(
        self,
        settings: Augment,
        preprocess: Preprocess,
        classes: int,
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings, self.preprocess = settings, preprocess
        self.classes, self.seed, self.dtype = classes, seed, dtype
        self.mixup = (
            Mixup(
                mixup_alpha=settings.mixup,
                cutmix_alpha=settings.cutmix,
                prob=settings.mix_prob,
                label_smoothing=settings.label_smoothing,
                num_classes=classes,
            )
            if settings.mixup or settings.cutmix
            else None
        )

    def rows(self, rows: Tensor, total: int) -> Tensor:
        """Rows of the step's batch that are needed to make `rows`: mixing needs their partners too."""
        return rows if self.mixup is None else torch.cat([rows, (total - 1 - rows).flip(0)])

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, total: int, step: int) -> Batch:
        """The batch of `rows`, from the images (in [0, 1]) and labels of `self.rows(rows, total)`."""
        plain = self.preprocess.normalise(images.to(self.dtype))
        x = self._erased(self._warped(plain, self.rows(rows, total), total, step), rows, total, step)
        b, targets = len(rows), labels
        if self.mixup is not None:
            x = x.clone() if x is plain else x
            with global_draws(self.seed, "mix", step):
                x, targets = self.mixup(x, labels)  # image i with image -1-i: the partners' half mirrors ours
        elif self.settings.label_smoothing:
            targets = mixup_target(labels, self.classes, 1.0, self.settings.label_smoothing)
        if targets.is_floating_point():
            targets = targets.to(self.dtype)
        return Batch(x[:b], plain[:b], labels[:b], targets[:b], rows, total, step)

    def _warped(self, x: Tensor, needed: Tensor, total: int, step: int) -> Tensor:
        s = self.settings
        if s.warp_ratio == 1:
            return x
        source = generator(self.seed, "augment", step)
        drawn = random_log_slopes(
            total, s.warp_segments, s.warp_ratio, distribution=s.warp_distribution, generator=source
        )
        return scale(x, SeparableWarp.from_log_slopes(drawn[needed].to(x)))

    def _erased(self, x: Tensor, rows: Tensor, total: int, step: int) -> Tensor:
        if not self.settings.erasing:
            return x
        erase = RandomErasing(self.settings.erasing, mode="const", device=str(x.device))
        images = []
        for image, row in zip(x.clone(), self.rows(rows, total).tolist(), strict=True):
            with global_draws(self.seed, "erase", step, row):
                images.append(erase(image))
        return torch.stack(images)
