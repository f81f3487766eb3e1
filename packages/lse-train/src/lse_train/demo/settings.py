"""What the demo trains, on what, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["BRACKETS", "DemoSettings"]

BRACKETS: tuple[tuple[float, float], ...] = ((0.4, 0.6), (0.6, 0.8), (0.8, 1.25), (1.25, 1.6), (1.6, 2.0))
"""Ranges of the resize factor that accuracy and InvE are reported for; training sees the middle one."""


@dataclass(frozen=True)
class DemoSettings:
    """Settings of one run; the defaults take minutes on two cores, `quick()` seconds.

    Attributes:
        seed: seed of data, initial weights and training order.
        device: torch device name.
        resolution: image side in pixels, a multiple of 32.
        train_images: images in the training set.
        train_scale: resize factors seen in training.
        test_scale: resize factors of the test set, most of them never seen in training.
        test_bases: test images at factor 1; each has `variants` resized versions.
        variants: resized versions of each base.
        batch_size: images a step.
        steps_aug: optimiser steps of the common start, Aug.
        steps_more: optimiser steps of each continuation, Aug-continued and DEC.
        aug_ratio: slopes of the augmenting random warps lie within [1/aug_ratio, aug_ratio].
        learning_rate: peak rate of the start.
        learning_rate_more: peak rate of both continuations.
        learning_rate_dec: peak rate of the canonicalizer.
        equivariance_weight: weight of Eq. 5 as a loss.
        equivariance_ratio: slopes of the random warps of that loss.
        segments: segments an axis of the canonicalizing warp.
        ratio: bound on its slopes.
        map_size: side of the reduced map the canonicalizer looks at.
        solver: fixed-point solver.
        solver_steps: evaluations of the update when the model answers.
        export_batches: batch sizes the exported model is verified at.
    """

    seed: int = 0
    device: str = "cpu"
    resolution: int = 96
    train_images: int = 8000
    train_scale: tuple[float, float] = (0.8, 1.25)
    test_scale: tuple[float, float] = (0.4, 2.0)
    test_bases: int = 250
    variants: int = 3
    batch_size: int = 32
    steps_aug: int = 750
    steps_more: int = 650
    aug_ratio: float = 2.0
    learning_rate: float = 3e-3
    learning_rate_more: float = 2e-3
    learning_rate_dec: float = 3e-3
    equivariance_weight: float = 1.0
    equivariance_ratio: float = 2.5
    segments: int = 8
    ratio: float = 4.0
    map_size: int = 16
    solver: str = "anderson"
    solver_steps: int = 5
    export_batches: tuple[int, ...] = (1, 5)

    def quick(self) -> DemoSettings:
        """The same run cut to what a test can wait for; its numbers mean nothing."""
        return replace(
            self, train_images=600, test_bases=60, variants=2, steps_aug=25, steps_more=15, batch_size=16
        )
