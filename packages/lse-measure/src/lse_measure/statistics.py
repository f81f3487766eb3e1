"""From the answers of all cases to the numbers of a report: means, intervals, calibration, orbits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lse_measure.measurement import Case, Change, Estimate, Level, Orbit, Sweep
from lse_measure.sweeps import REFERENCES, UNITS, Plan

__all__ = ["calibration_error", "estimate", "sweep_of"]

Array = NDArray[np.float64]

RESAMPLES = 1000  # of the bootstrap
WORST = 10
BINS = 15  # of the calibration error


def sweep_of(change: Change, rows: Sequence[Mapping[str, Any]], plan: Plan) -> Sweep:
    """What one change did, from the rows of its cases.

    Args:
        change: the family of change.
        rows: one for each case, at least one; what `lse_measure.answers` returns, with the picture's
            name and label.
        plan: what was asked for.
    """
    cases = [_case(row) for row in rows]
    levels, reference = plan.levels(change), REFERENCES[change]
    known = {
        name: _table([getattr(case, name) for case in cases], len(levels))
        for name in ("probability", "confidence", "distance", "changed", "equivariance_error", "miou")
    }
    labels = np.array([np.nan if case.label is None else case.label for case in cases])
    known["accuracy"] = _right(_table([case.answers for case in cases], len(levels)), labels)
    others = np.array([level != reference for level in levels])
    pictures = _numbered([case.picture for case in cases])
    intervals: dict[str, Any] = {
        name: estimate(known[name] if name == "accuracy" else known[name][:, others], pictures, plan.seed)
        for name in ("distance", "changed", "accuracy", "equivariance_error", "miou")
    }
    intervals["invariance_error"] = intervals.pop("distance")
    return Sweep(
        change=change,
        unit=UNITS[change],
        reference=reference,
        pictures=int(pictures.max()) + 1,
        levels=tuple(_level(level, k, known) for k, level in enumerate(levels)),
        orbit=_orbit([row["orbit"] for row in rows if row.get("orbit")], plan.orbit),
        worst=_worst(known, others),
        cases=tuple(cases),
        **intervals,
    )


def estimate(values: Array, pictures: NDArray[np.int64], seed: int) -> Estimate | None:
    """The mean of what is known, and a 95% interval by a bootstrap over pictures.

    Args:
        values: (cases, views), NaN where nothing is known.
        pictures: (cases,), the number of each case's picture; a picture's cases are drawn together.
        seed: of the draws.

    Returns:
        None where nothing is known.
    """
    number = int(pictures.max()) + 1
    known = np.isfinite(values)
    sums = np.bincount(pictures, np.where(known, values, 0.0).sum(1), number)
    counts = np.bincount(pictures, known.sum(1), number)
    if not counts.sum():
        return None
    draws = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        picked = draws.integers(number, size=number)
        if total := counts[picked].sum():
            means.append(sums[picked].sum() / total)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(value=float(sums.sum() / counts.sum()), low=float(low), high=float(high))


def calibration_error(confidence: Array, right: Array) -> float | None:
    """Expected calibration error of top-1 answers, L1, in 15 bins of equal width.

    Args:
        confidence: (n,) probabilities of the answers.
        right: (n,) 1 where the answer is the label, else 0; NaN where there is no label.

    """
    known = np.isfinite(confidence) & np.isfinite(right)
    if not known.any():
        return None
    from torchmetrics.functional.classification import binary_calibration_error

    # of top-1 answers it is the binary error of "the answer is right" at the answer's probability
    return float(
        binary_calibration_error(
            torch.from_numpy(confidence[known]).clamp(0, 1),
            torch.from_numpy(right[known]).long(),
            n_bins=BINS,
            norm="l1",
        )
    )


def _case(row: Mapping[str, Any]) -> Case:
    return Case(**{name: value for name, value in row.items() if name not in ("orbit", "change")})


def _table(lists: Sequence[Sequence[float | None]], width: int) -> Array:
    """(cases, levels), NaN for what is not known."""
    empty = [None] * width
    return np.array([list(values) or empty for values in lists], dtype=np.float64)


def _right(answers: Array, labels: Array) -> Array:
    known = np.isfinite(answers) & np.isfinite(labels)[:, None]
    return np.where(known, answers == labels[:, None], np.nan)


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], dtype=np.int64)


def _mean(values: Array) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _level(level: float, k: int, known: Mapping[str, Array]) -> Level:
    column = {name: values[:, k] for name, values in known.items()}
    probability, distance = column["probability"], column.pop("distance")
    finite = np.isfinite(probability)
    return Level(
        level=level,
        cases=int(finite.sum()),
        worst=float(probability[finite].min()) if finite.any() else None,
        invariance_error=_mean(distance),
        calibration_error=calibration_error(column["confidence"], column["accuracy"]),
        **{name: _mean(values) for name, values in column.items()},
    )


def _worst(known: Mapping[str, Array], others: NDArray[np.bool_]) -> tuple[int, ...]:
    """The cases with the greatest InvE, or of segmentors with the least mIoU; in their order where equal."""
    distance, miou = known["distance"][:, others], known["miou"][:, others]
    scores = distance if np.isfinite(distance).any() else -miou
    counts = np.isfinite(scores).sum(1)
    means = np.where(np.isfinite(scores), scores, 0).sum(1) / np.maximum(counts, 1)
    order = np.argsort(-means, kind="stable")
    return tuple(int(case) for case in order if counts[case])[:WORST]


def _orbit(rows: Sequence[Mapping[str, Sequence[float | None]]], factors: Sequence[float]) -> Orbit | None:
    if not rows or not factors:
        return None
    n = len(factors)
    maps = {name: _table([row[name] for row in rows], n * n) for name in rows[0]}
    whole = np.all([np.isfinite(values).all(1) for values in maps.values()], axis=0)
    cells: dict[str, Any] = {}
    for name, values in maps.items():
        means = [_mean(column) for column in values.T]
        cells[name] = tuple(tuple(means[row * n : (row + 1) * n]) for row in range(n))
    return Orbit(
        factors=tuple(factors),
        cases=int(whole.sum()),
        probability=cells["probability"],
        changed=cells["changed"],
        invariance_error=cells["distance"],
    )
