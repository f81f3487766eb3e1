"""Training the demo's models: random monotone scaling (Aug), and Eq. 5 for the canonicalizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lse_core.card import attach
from lse_core.preprocess import Preprocess
from lse_core.resample import unscale
from lse_core.separable import SeparableWarp
from lse_dec.adaptation import AdaptedModel, adapt
from lse_dec.checkpoint.source import make, named
from lse_dec.losses import canonicalizer_equivariance_loss
from lse_train.data import DigitsConfig, DigitsDataset, load_digits_dataset
from lse_train.demo.settings import DemoSettings

__all__ = [
    "Progress",
    "TrainingLog",
    "normalise",
    "preprocess_for",
    "train",
    "train_models",
    "training_set",
]

Progress = Callable[[str, int], Callable[[], None]]
"""Starts a phase of so many steps; what it returns is called after each."""


def preprocess_for(resolution: int) -> Preprocess:
    """How the demo's models want their pictures, white ink on black: ink becomes 3, paper -0.33."""
    return Preprocess(channels=1, size=(resolution, resolution), mean=(0.1,), std=(0.3,))


def normalise(images: Tensor) -> Tensor:
    """uint8 (N, 1, R, R) to the network's input, float32."""
    return preprocess_for(images.shape[-1]).normalise(images.float() / 255.0)


@dataclass(frozen=True)
class TrainingLog:
    """Losses of a run: first and last tenth of its steps.

    Attributes:
        steps: optimiser steps taken.
        loss: mean cross-entropy over the last tenth.
        equivariance: mean of Eq. 5's loss over the first and the last tenth (1 is
            what every warp costs that is the same for all images), or None without a canonicalizer.
    """

    steps: int
    loss: float
    equivariance: tuple[float, float] | None


def training_set(settings: DemoSettings) -> DigitsDataset:
    """Training images, all of moderate factors; made on the first call and kept on disk."""
    return load_digits_dataset(
        DigitsConfig(
            count=settings.train_images,
            scale=settings.train_scale,
            resolution=settings.resolution,
            seed=settings.seed,
            split_seed=settings.seed,
            split="train",
        )
    )


def train_models(
    settings: DemoSettings, images: Tensor, labels: Tensor, progress: Progress
) -> tuple[dict[str, nn.Module], dict[str, TrainingLog]]:
    """Train "aug", and from its weights with one further budget "aug_continued" and "dec".

    Initial weights are drawn from torch's own generator.

    Args:
        settings: the demo's settings.
        images: (N, 1, R, R) normalised, on the settings' device.
        labels: (N,) int64, there too.
        progress: how to show that work goes on.

    Returns:
        The three models in training mode, "dec" being an `AdaptedModel`, and their logs, by name.
    """
    aug = make(named("demo_numbers", {"resolution": settings.resolution})).to(settings.device)
    attach(
        aug,
        preprocess=preprocess_for(settings.resolution),
        class_names=tuple(f"{number:03d}" for number in range(1000)),
    )
    logs = {}
    logs["aug"] = train(
        aug, images, labels, settings,
        steps=settings.steps_aug, learning_rate=settings.learning_rate, seed=settings.seed,
        on_step=progress("train Aug", settings.steps_aug),
    )  # fmt: skip
    models: dict[str, nn.Module] = {
        "aug": aug,
        "aug_continued": copy.deepcopy(aug),
        "dec": adapt(
            copy.deepcopy(aug),
            ["image"],
            rule="compose",
            solver=settings.solver,
            steps=settings.solver_steps,
            segments=settings.segments,
            ratio=settings.ratio,
            resolution=settings.map_size,
            projection=8,
            widths=(16, 32),
            gradient="unrolled",
        ),
    }
    for name, title in (("aug_continued", "train Aug on"), ("dec", "train DEC")):
        logs[name] = train(
            models[name], images, labels, settings,
            steps=settings.steps_more, learning_rate=settings.learning_rate_more, seed=settings.seed + 1,
            on_step=progress(title, settings.steps_more),
        )  # fmt: skip
    return models, logs


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: DemoSettings,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    on_step: Callable[[], None],
) -> TrainingLog:
    """Train with AdamW and a one-cycle schedule; every image is warped anew (Aug).

    An `AdaptedModel`'s canonicalizer learns by Eq. 5 alone, while the backbone learns the task on what
    it gives: random warps, a random number of solver steps, no labels (see
    `canonicalizer_equivariance_loss`). With the task's gradient added to its own it did not learn to
    canonicalize: the loss of Eq. 5 stayed at 0.99 where alone it fell to 0.4 in 250 steps.

    Args:
        model: classifier to 1,000 log-probabilities.
        images: (N, 1, R, R) normalised, on the model's device.
        labels: (N,) int64.
        settings: the demo's settings.
        steps: optimiser steps.
        learning_rate: peak rate of the backbone.
        seed: seed of batches and warps.
        on_step: called after every step.
    """
    backbone = list(model.backbone_parameters() if isinstance(model, AdaptedModel) else model.parameters())
    groups: list[dict[str, Any]] = [{"params": backbone, "lr": learning_rate}]
    own: list[nn.Parameter] = []
    if isinstance(model, AdaptedModel):
        own = list(model.canonicalizer_parameters())
        groups.append({"params": own, "lr": settings.learning_rate_dec})
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [group["lr"] for group in groups], total_steps=steps, pct_start=0.2
    )
    # drawn on the CPU, so that a seed means the same on every device
    generator = torch.Generator().manual_seed(seed)
    losses, errors = [], []
    model.train()
    for batch in _batches(len(images), settings.batch_size, steps, generator):
        n = len(batch)
        augmenting = SeparableWarp.random(n, 4, settings.aug_ratio, generator=generator)
        x = unscale(images[batch], augmenting.to(images.device))
        with _frozen(own):
            loss = F.nll_loss(model(x), labels[batch])
        losses.append(loss.detach())
        total = loss
        if isinstance(model, AdaptedModel):
            g = SeparableWarp.random(
                n, settings.segments // 2, settings.equivariance_ratio, generator=generator
            )
            solver_steps = int(torch.randint(2, settings.solver_steps + 2, (), generator=generator))
            for canonicalizer in model.canonicalizers.values():
                error = canonicalizer_equivariance_loss(
                    canonicalizer, x, g.to(images.device), steps=solver_steps
                )
                total = total + settings.equivariance_weight * error
                errors.append(error.detach())
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(backbone, 1.0)
        if own:
            nn.utils.clip_grad_norm_(own, 0.5)
        optimiser.step()
        schedule.step()
        on_step()
    tenth = max(1, steps // 10)
    return TrainingLog(
        steps,
        float(torch.stack(losses[-tenth:]).mean()),
        (float(torch.stack(errors[:tenth]).mean()), float(torch.stack(errors[-tenth:]).mean()))
        if errors
        else None,
    )


@contextmanager
def _frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    """No gradient for these while the block runs."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _batches(total: int, size: int, steps: int, generator: torch.Generator) -> list[Tensor]:
    """`steps` batches of indices: every image once before any comes again."""
    rounds = -(-steps * size // total)
    order = torch.cat([torch.randperm(total, generator=generator) for _ in range(rounds)])
    return list(order[: steps * size].split(size))
