"""The numbers of a measurement as tables on the terminal, and as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from lse_core.atomic import replacing
from lse_core.measuring.measurement import Counts, Estimate, Level, Measurement, Sweep

__all__ = ["left_out", "print_tables", "write_csv"]

TITLES = {
    "objects": "Objects resized on their own",
    "warps": "Whole pictures under monotone warps",
    "rotation": "Whole pictures turned about their centre",
}
COLUMNS = {
    "probability": "first answer",
    "worst": "worst",
    "changed": "changed",
    "invariance_error": "InvE",
    "equivariance_error": "EquE",
    "miou": "mIoU",
    "accuracy": "accuracy",
    "calibration_error": "calibration",
}
"""Numbers of a level by what they are called above their column; those that nothing has are not shown."""

PERCENT = {"changed", "accuracy", "miou"}

CSV = (
    *("model", "change", "picture", "number", "name", "level", "label", "answer", "answer_name"),
    *("top1", "top1_name", "probability", "confidence", "distance", "changed", "equivariance_error", "miou"),
)


def print_tables(measurements: Sequence[Measurement]) -> None:
    """Print a table of all models for each change, and for each model one by level."""
    console = Console()
    changes = dict.fromkeys(sweep.change for one in measurements for sweep in one.sweeps)
    for change in changes:
        pairs = [(one, sweep) for one in measurements if (sweep := one.sweep(change)) is not None]
        console.print(_summary(TITLES[change], pairs))
        for one, sweep in pairs:
            console.print(_by_level(one, sweep, len(measurements) > 1))
            if (worst := _worst(one, sweep)) is not None:
                console.print(worst)
    for one in measurements:
        for site in one.sites:
            residual = "" if site.residual is None else f", residual {site.residual:.1e}"
            console.print(
                f"{one.model}, site {site.name}: moves points by {site.displacement_pixels:.2f} px{residual}",
                soft_wrap=True, highlight=False, markup=False,
            )  # fmt: skip


def left_out(counts: Counts) -> str:
    """What was not measured, in one sentence; "" where all was."""
    texts = {
        "unreadable": "pictures that cannot be read",
        "without_objects": "pictures without a mask or a box, for the change objects",
        "bad_masks": "masks that cannot be used",
        "bad_boxes": "boxes that cannot be used",
        "without_label": "pictures without a label, for accuracy",
        "not_finite": "views for which the model answered with NaN or infinity",
    }
    told = [f"{getattr(counts, name)} {text}" for name, text in texts.items() if getattr(counts, name)]
    return f"left out: {'; '.join(told)}" if told else ""


def write_csv(measurements: Sequence[Measurement], path: Path, *, overwrite: bool = False) -> None:
    """Write a row for every case at every level.

    Raises:
        OutputError: the file exists and `overwrite` is off, or it cannot be written.
    """
    with replacing(path, overwrite) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV, restval="")
        writer.writeheader()
        for one in measurements:
            for sweep in one.sweeps:
                writer.writerows(_rows(one, sweep))


def _rows(one: Measurement, sweep: Sweep) -> Iterator[dict[str, Any]]:
    for case in sweep.cases:
        for k, level in enumerate(sweep.levels):
            row: dict[str, Any] = {
                "model": one.model,
                "change": sweep.change,
                "picture": case.picture,
                "number": case.number,
                "name": case.name or "",
                "level": level.level,
                "label": "" if case.label is None else case.label,
            }
            if case.answer is not None:
                row |= {"answer": case.answer, "answer_name": one.class_name(case.answer)}
            if case.answers and (top := case.answers[k]) is not None:
                row |= {"top1": top, "top1_name": one.class_name(top)}
            for name in ("probability", "confidence", "distance", "changed", "equivariance_error", "miou"):
                values = getattr(case, name)
                if values and values[k] is not None:
                    row[name] = f"{values[k]:.9g}"
            yield row


def _summary(title: str, pairs: Sequence[tuple[Measurement, Sweep]]) -> Table:
    kinds = ("invariance_error", "equivariance_error", "changed", "accuracy", "miou")
    shown = [kind for kind in kinds if any(getattr(sweep, kind) is not None for _, sweep in pairs)]
    names = [name for kind in shown for name in (COLUMNS[kind], "95%")]
    table = Table(
        "model", "pictures", "cases", *names, title=title, box=box.SIMPLE, pad_edge=False, padding=(0, 1)
    )
    for one, sweep in pairs:
        cells = [cell for kind in shown for cell in _interval(getattr(sweep, kind), kind)]
        table.add_row(one.model, str(sweep.pictures), str(len(sweep.cases)), *cells)
    return table


def _by_level(one: Measurement, sweep: Sweep, several: bool) -> Table:
    shown = [c for c in COLUMNS if any(getattr(level, c) is not None for level in sweep.levels)]
    table = Table(
        sweep.unit, *(COLUMNS[c] for c in shown), box=box.SIMPLE, pad_edge=False,
        title=f"{one.model}: {sweep.change}" if several else None,
    )  # fmt: skip
    for level in sweep.levels:
        table.add_row(f"{level.level:.3g}", *(_cell(level, name) for name in shown))
    return table


def _cell(level: Level, name: str) -> str:
    value = getattr(level, name)
    if value is None:
        return ""
    if name in PERCENT:
        return f"{100 * value:.1f}%"
    return f"{value:.4g}" if name == "equivariance_error" else f"{value:.3f}"


def _interval(found: Estimate | None, kind: str) -> tuple[str, str]:
    if found is None:
        return "", ""
    if kind in PERCENT:
        return f"{100 * found.value:.1f}%", f"{100 * found.low:.1f}-{100 * found.high:.1f}"
    digits = ".4g" if kind == "equivariance_error" else ".3f"
    return f"{found.value:{digits}}", f"{found.low:{digits}}-{found.high:{digits}}"


def _worst(one: Measurement, sweep: Sweep) -> Table | None:
    """The worst cases of a classifier, each at the level where its first answer is least probable."""
    table = Table(
        "picture", "first answer", "unchanged", "least", f"at {sweep.unit}",
        title=f"Worst of {one.model}", box=box.SIMPLE, pad_edge=False,
    )  # fmt: skip
    for index in sweep.worst[:5]:
        case = sweep.cases[index]
        known = [
            (p, level.level) for p, level in zip(case.probability, sweep.levels, strict=True) if p is not None
        ]
        if case.answer is None or case.reference is None or not known:
            continue
        least, level = min(known)
        name = f"{case.picture}, {case.name or case.number}" if sweep.change == "objects" else case.picture
        table.add_row(
            name, one.class_name(case.answer), f"{case.reference:.2f}", f"{least:.2f}", f"{level:.3g}"
        )
    return table if table.row_count else None
