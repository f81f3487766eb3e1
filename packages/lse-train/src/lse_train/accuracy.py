"""Accuracy by scale bracket, with its spread: Tables 3 and 6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lse_core.errors import ShapeError

__all__ = ["ScaleAccuracy", "accuracy_per_scale"]


class ScaleAccuracy(NamedTuple):
    """Accuracies within [0, 1] over scale brackets.

    Attributes:
        brackets: the ranges of scale.
        accuracy: (K,) accuracy in each; NaN where no sample fell into one.
        samples: (K,) samples in each.
        mean: mean over brackets, each weighing the same, as the paper's "Overall".
        std: standard deviation over brackets, of the population (divided by K, not K - 1), which is
            what the paper's tables print.
    """

    brackets: tuple[tuple[float, float], ...]
    accuracy: Tensor
    samples: Tensor
    mean: Tensor
    std: Tensor


def accuracy_per_scale(
    predictions: Tensor, targets: Tensor, scales: Tensor, brackets: Sequence[tuple[float, float]]
) -> ScaleAccuracy:
    """Share of right answers by scale bracket.

    Args:
        predictions: (N, classes) scores, or (N,) classes.
        targets: (N,) classes.
        scales: (N,) the scale of each sample; in a picture of several objects, whichever is asked about.
        brackets: ranges (low, high), low included and high not, but for the largest high. They may
            overlap; samples outside all of them do not count.

    Raises:
        ShapeError: lengths differ, or a bracket is empty or none is given.
    """
    if not brackets or not all(low < high for low, high in brackets):
        raise ShapeError(f"brackets must be ranges (low, high) with low < high; got {list(brackets)}")
    classes = predictions.argmax(dim=-1) if predictions.ndim == targets.ndim + 1 else predictions
    if not classes.shape == targets.shape == scales.shape or targets.ndim != 1:
        raise ShapeError(
            f"predictions {tuple(predictions.shape)}, targets {tuple(targets.shape)} and scales "
            f"{tuple(scales.shape)} must agree in the number of samples"
        )
    top = max(high for _, high in brackets)
    inside = torch.stack(
        [(scales >= low) & ((scales < high) | ((scales <= high) & (high == top))) for low, high in brackets]
    )
    right, count = (inside & (classes == targets)).sum(1), inside.sum(1)
    accuracy = right.double() / count  # 0/0 is NaN: a bracket without samples has no accuracy
    seen = accuracy[count > 0]
    return ScaleAccuracy(
        tuple(brackets), accuracy.float(), count, seen.mean().float(), seen.std(correction=0).float()
    )
