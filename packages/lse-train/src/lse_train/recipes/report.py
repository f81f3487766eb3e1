"""Tables of a recipe's results: means and deviations over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lse_train.recipes.plan import MEASURES, RESULT, Cell
from lse_train.recipes.schema import Recipe, Report

__all__ = ["Result", "Spread", "gather", "markdown", "numbers", "page", "read_results"]

VALUES: Mapping[str, tuple[str, str]] = {
    "accuracy": ("accuracy, %", "{:.1f}"),
    "invariance_error": ("InvE", "{:.3f}"),
    "displacement_pixels": ("warps move, px", "{:.2f}"),
    "residual": ("residual", "{:.1e}"),
    "not_converged": ("not converged, %", "{:.0f}"),
}
"""What people read, and how numbers are written."""

PERCENT = ("accuracy", "not_converged")
HIGHER = ("accuracy",)
"""Values of which more is better; of all others less is."""


@dataclass(frozen=True)
class Result:
    """A finished cell: its place, seed, seconds of training, and numbers by test set and by measure."""

    place: Mapping[str, str]
    seed: int
    seconds: float
    metrics: Mapping[str, Mapping[str, Any]]
    measures: Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (0 for one seed) and number of seeds."""

    mean: float
    deviation: float
    count: int


def read_results(out: Path, cells: Sequence[Cell], measured: bool) -> list[Result]:
    """The results of those `cells` that are finished, their further measurements if `measured`, included."""
    found, runs = [], dict[str, tuple[Any, Any]]()
    for cell in cells:
        folder = out / "cells" / cell.name
        result, measures = folder / RESULT, folder / MEASURES
        if not result.exists() or (measured and not measures.exists()):
            continue
        if cell.name not in runs:  # cells of the same settings share one
            more = json.loads(measures.read_text(encoding="utf-8")) if measured else {}
            runs[cell.name] = (json.loads(result.read_text(encoding="utf-8")), more)
        said, more = runs[cell.name]
        found.append(Result(cell.place, cell.seed, said["seconds"], said["metrics"], more))
    return found


def gather(recipe: Recipe, report: Report, results: Sequence[Result]) -> tuple[list[str], list[str]]:
    """Options of the rows and of the columns, in the recipe's order."""
    rows = list(recipe.axes[report.rows])
    if report.columns == "measures":
        return rows, list(recipe.measures)
    if report.columns == "tests":
        return rows, list(recipe.run["data"]["tests"])
    return rows, list(recipe.axes[report.columns])


def numbers(
    recipe: Recipe, report: Report, results: Sequence[Result], row: str, column: str | None, value: str
) -> Spread | None:
    """Mean and deviation over seeds of one number; None where no seed is finished.

    What shares row, column and seed is averaged first: axes that the report does not name, and for
    `column` None all columns. The deviation so is that of what is shown. A seed counts only
    if all that it averages is there.
    """
    test = report.test or next(iter(recipe.run["data"]["tests"]))
    columns = gather(recipe, report, results)[1] if column is None else [column]
    others = [
        len(options)
        for axis, options in recipe.axes.items()
        if axis not in (report.rows, report.columns) and axis not in report.where
    ]
    wanted = len(columns) * math.prod(others)
    by_seed: dict[int, list[float]] = {}
    for result in results:
        if result.place[report.rows] != row:
            continue
        if any(result.place[axis] != option for axis, option in report.where.items()):
            continue
        for name in columns:
            if report.columns == "tests":
                metrics = result.metrics.get(name)
            elif report.columns == "measures":
                metrics = result.measures.get(name, {}).get(test)
            else:
                metrics = result.metrics.get(test) if result.place[report.columns] == name else None
            number = None if metrics is None else _number(metrics, value)
            if number is not None:
                by_seed.setdefault(result.seed, []).append(number)
    means = [statistics.fmean(values) for values in by_seed.values() if len(values) == wanted]
    if not means:
        return None
    return Spread(statistics.fmean(means), statistics.stdev(means) if len(means) > 1 else 0.0, len(means))


def _number(metrics: Mapping[str, Any], value: str) -> float | None:
    number = metrics.get(value)
    if number is None:  # of sites: their mean
        sites = [site.get(value) for site in metrics.get("sites", {}).values()]
        known = [float(n) for n in sites if n is not None]
        number = statistics.fmean(known) if known else None
    return None if number is None else float(number) * (100.0 if value in PERCENT else 1.0)


def page(recipe: Recipe, results: Sequence[Result], total: int, notes: Mapping[str, Any]) -> str:
    """The recipe's page in Markdown: what is asked, the tables, three sentences, the command.

    Args:
        recipe: the recipe.
        results: of its finished runs.
        total: its runs in all.
        notes: "command", "machine" and "versions", see `lse_train.recipes.results.claim`.
    """
    runs = {id(result.metrics): result.seconds for result in results}
    seeds = ", ".join(str(seed) for seed in sorted({result.seed for result in results})) or "none yet"
    versions = ", ".join(f"{name} {version}" for name, version in notes["versions"].items())
    sentences = [
        _best(recipe, results),
        f"Every number is a mean over the seeds that are done ({seeds}), ± their sample standard deviation "
        "where there is more than one.",
        f"Training took {sum(runs.values()) / 60:.1f} minutes, common starts and measurements not counted, "
        f"on a machine with {notes['machine']}; the versions were {versions}.",
    ]
    parts = [
        f"# {recipe.title}",
        *([recipe.about.strip()] if recipe.about.strip() else []),
        markdown(recipe, results, total).rstrip(),
        "\n".join(sentence for sentence in sentences if sentence),
        f"`{notes['command']}`",
    ]
    return "\n\n".join(parts) + "\n"


def _best(recipe: Recipe, results: Sequence[Result]) -> str:
    """Which row of the first table is best by its first value, in a sentence; empty without a number."""
    if not recipe.reports or not recipe.reports[0].values:
        return ""
    report = recipe.reports[0]
    value, columns = report.values[0], gather(recipe, report, results)[1]
    column = None if report.average or not columns else columns[0]
    found = {
        recipe.label(report.rows, row): numbers(recipe, report, results, row, column, value)
        for row in recipe.axes[report.rows]
    }
    there = {label: spread for label, spread in found.items() if spread is not None}
    if len(there) < 2:
        return ""
    ordered = sorted(there, key=lambda label: there[label].mean, reverse=value in HIGHER)
    first, last = ordered[0], ordered[-1]
    name = VALUES.get(value, (value, ""))[0].replace(", ", " in ")
    return (
        f'In the column "{_column(recipe, report, column)}" of the first table, {first} is best by {name} '
        f"({_written(there[first], value, recipe.seeds)}), and {last} is last "
        f"({_written(there[last], value, recipe.seeds)})."
    )


def _column(recipe: Recipe, report: Report, name: str | None) -> str:
    if name is None:
        return "mean"
    return recipe.label(report.columns, name) if report.columns in recipe.axes else name


def markdown(recipe: Recipe, results: Sequence[Result], total: int) -> str:
    """All tables of the recipe, and how many of its `total` runs they rest on."""
    lines = [f"{len(results)} of {total} runs are finished."]
    if len(results) < total:
        lines[0] += " Partial: where not all seeds are done, the number in brackets says how many are."
    for report in recipe.reports:
        lines += ["", *([f"## {report.title}", ""] if report.title else []), *_table(recipe, report, results)]
    return "\n".join(lines) + "\n"


def _table(recipe: Recipe, report: Report, results: Sequence[Result]) -> list[str]:
    rows, columns = gather(recipe, report, results)
    shown: list[str | None] = [*columns, *([None] if report.average else [])]

    heads = [
        f"{_column(recipe, report, column)}: {VALUES.get(value, (value, ''))[0]}"
        for column in shown
        for value in report.values
    ]
    lines = [f"| {report.rows} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        cells = [
            _written(numbers(recipe, report, results, row, column, value), value, recipe.seeds)
            for column in shown
            for value in report.values
        ]
        lines.append(f"| {recipe.label(report.rows, row)} | " + " | ".join(cells) + " |")
    return lines


def _written(found: Spread | None, value: str, seeds: int) -> str:
    if found is None:
        return ""
    form: Callable[[float], str] = VALUES.get(value, (value, "{:.3g}"))[1].format
    text = form(found.mean) + (f" ± {form(found.deviation)}" if found.count > 1 else "")
    return text if found.count == seeds else f"{text} ({found.count})"
