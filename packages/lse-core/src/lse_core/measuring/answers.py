"""What a model answers to all views of one case, as a row of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lse_core.measuring.sweeps import Views
from lse_core.metrics import equivariance_error, invariance_error

__all__ = ["classified", "segmented"]

Probabilities = Callable[[Tensor], Tensor]
"""Images (b, C, h, w) in [0, 1] to probabilities in float64, (b, classes) or (b, classes, h, w)."""


def classified(views: Views, probabilities: Probabilities, batch: int) -> dict[str, Any]:
    """The row of a classifier.

    Args:
        views: of one case.
        probabilities: the model.
        batch: most images at once. Batches hold views of one case, so that no number depends on which other
            pictures are measured.

    Returns:
        Fields of `Case`, `orbit` with lists of its cells, and `not_finite`, the number of views that count
        nowhere because the model answered with NaN or infinity.
    """
    keys = views.keys
    p = torch.cat([out for _, out in _batches(views, keys, probabilities, batch)])
    finite = p.isfinite().all(1)
    row: dict[str, Any] = {"number": views.number, "name": views.name, "not_finite": int((~finite).sum())}
    answer = int(p[0].argmax())
    distance = invariance_error(p[:1], p[None], reduction="none")[0]
    confidence, top = p.max(1)
    known = finite & finite[0]
    told = {
        "probability": _numbers(p[:, answer], known),
        "answers": _numbers(top, known),
        "confidence": _numbers(confidence, known),
        "distance": _numbers(distance, known),
        "changed": _numbers((top != answer).double(), known),
    }
    place = {key: index for index, key in enumerate(keys)}
    at = [place[key] for key in views.levels]
    row |= {name: [values[k] for k in at] for name, values in told.items()}
    others = [told["distance"][k] for k in at if k != 0]
    row["invariance_error"] = _mean(others)
    if bool(finite[0]):
        row |= {"answer": answer, "reference": float(p[0, answer])}
    if views.orbit:
        cells = [place[key] for key in views.orbit]
        row["orbit"] = {
            name: [told[name][k] for k in cells] for name in ("probability", "changed", "distance")
        }
    return row


def segmented(
    views: Views, probabilities: Probabilities, batch: int, classes: int, labels: Tensor | None = None
) -> dict[str, Any]:
    """The row of a segmentor; its answers are compared where the pixels of the reference view are now.

    Args:
        views: of one case.
        probabilities: the model.
        batch: most images at once.
        classes: number of classes.
        labels: (h, w) int64, the label map of the reference view, -1 where there is none; without it mIoU is
            against the answer to the reference view.

    Returns:
        As `classified`.
    """
    keys = views.keys
    found: dict[str, dict[Any, float | None]] = {
        name: {} for name in ("probability", "confidence", "changed", "miou", "equivariance_error")
    }
    first: tuple[Tensor, Tensor] | None = None
    not_finite = 0
    for key, out in _single(views, keys, probabilities, batch):
        if not bool(out.isfinite().all()):
            not_finite += 1
            continue
        confidence, answer = out.max(0)
        if key == views.reference:
            first = (out, answer)
        if first is None:  # without a reference nothing can be compared
            continue
        own = views.moved(key, first[1])
        known = own >= 0
        target = own if labels is None else views.moved(key, labels)
        if bool(known.any()):
            found["probability"][key] = float(out.gather(0, own.clamp_min(0)[None])[0][known].mean())
            found["changed"][key] = float((answer != own)[known].double().mean())
        found["confidence"][key] = float(confidence.mean())
        found["miou"][key] = _miou(answer, target, classes)
        if views.warp is not None:
            error = equivariance_error(first[0][None], out[None], views.warp(key).to(out))
            found["equivariance_error"][key] = float(error)
    row: dict[str, Any] = {"number": views.number, "name": views.name, "not_finite": not_finite}
    row |= {name: [values.get(key) for key in views.levels] for name, values in found.items() if values}
    if first is not None:
        row["reference"] = found["probability"].get(views.reference)
    if views.orbit:
        cells = {name: [found[name].get(key) for key in views.orbit] for name in ("probability", "changed")}
        row["orbit"] = {**cells, "distance": [None] * len(views.orbit)}
    return row


def _batches(
    views: Views, keys: Sequence[Any], probabilities: Probabilities, batch: int
) -> Iterator[tuple[Sequence[Any], Tensor]]:
    for start in range(0, len(keys), batch):
        chunk = keys[start : start + batch]
        yield chunk, probabilities(torch.stack([views.image(key) for key in chunk]))


def _single(
    views: Views, keys: Sequence[Any], probabilities: Probabilities, batch: int
) -> Iterator[tuple[Any, Tensor]]:
    for chunk, out in _batches(views, keys, probabilities, batch):
        yield from zip(chunk, out, strict=True)


def _miou(answer: Tensor, target: Tensor, classes: int) -> float | None:
    """Mean IoU over the classes that occur in either map, where the target is known."""
    from torchmetrics.functional.classification import multiclass_jaccard_index

    if not bool((target >= 0).any()):
        return None
    return float(
        multiclass_jaccard_index(answer, target, num_classes=classes, average="macro", ignore_index=-1)
    )


def _numbers(values: Tensor, known: Tensor) -> list[Any]:
    return [v if k else None for v, k in zip(values.tolist(), known.tolist(), strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
