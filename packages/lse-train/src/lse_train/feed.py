"""The batches of every step, read ahead of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lse_train.augmentation import Augmentation
from lse_train.batch import Batch
from lse_train.config import RunConfig
from lse_train.sources import Order, Source

__all__ = ["Feed"]


class Feed:
    """Gives this process its parts of each step's batch.

    The batch of a step depends on the step alone. It is cut into `accumulation` parts, and each part into
    as many as there are processes.

    Args:
        config: the run.
        source: the training set.
        augment: makes batches of images.
        rank: number of this process.
        world: number of processes.
        device: where batches go.
    """

    def __init__(
        self,
        config: RunConfig,
        source: Source,
        augment: Augmentation,
        rank: int,
        world: int,
        device: torch.device,
    ) -> None:
        self.source, self.augment, self.device, self.seed = source, augment, device, config.seed
        self.total = config.batch_size
        rows = torch.arange(self.total).view(config.accumulation, world, -1)[:, rank]
        self.rows = list(rows)
        self.order = None if source.endless else Order(len(source), self.total, config.seed)

    def steps(self, first: int, last: int) -> Iterator[tuple[int, list[Batch]]]:
        """Yield (step, batches) for the steps from `first` to `last` - 1."""
        if self.order is None:
            for step in range(first, last):
                images, labels = self.source.sample(self.total, self.seed, step, self.device)
                needed = [self.augment.rows(rows, self.total).to(self.device) for rows in self.rows]
                raw = ((images[some], labels[some]) for some in needed)
                yield step, self._batches(raw, step)
            return
        picks = (
            self.order.step(step)[self.augment.rows(rows, self.total)]
            for step in range(first, last)
            for rows in self.rows
        )
        read = self.source.read(picks, self.device)
        for step in range(first, last):
            yield step, self._batches(read, step)

    def _batches(self, read: Iterator[tuple[torch.Tensor, torch.Tensor]], step: int) -> list[Batch]:
        return [
            self.augment(images, labels, rows, self.total, step)
            for rows, (images, labels) in zip(self.rows, read, strict=False)
        ]
