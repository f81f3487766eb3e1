"""Print the tables of a recipe's results, or write their page with a figure.

python tools/tables.py runs/unseen_scales-cpu
python tools/tables.py runs/unseen_scales-cpu --write docs/results/unseen_scales.md

A page that is written again keeps what people wrote on it: its answer, with all sections up to "How it was
measured", and the remarks at its end.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from answers import HOW, write_page

from lse_core.errors import LSEError
from lse_train.recipes import open_results
from lse_train.recipes.report import gather, markdown, numbers, read_results

LAST = "without starts and measurements."
"""The last words of what this script writes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of results, as `lse train RECIPE` writes it")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE.md", help="write the page, and PAGE.svg beside it"
    )
    options = parser.parse_args(arguments)
    try:
        recipe, plan, notes = open_results(options.out)
    except LSEError as error:
        sys.exit(f"error: {error}")
    results = read_results(options.out, plan.cells, bool(recipe.measures))
    tables = markdown(recipe, results, len(plan.cells))
    if options.write is None:
        print(tables)
        return
    if not results:
        sys.exit(f"error: {options.out} has no finished run, so there is nothing to write")
    options.write.parent.mkdir(parents=True, exist_ok=True)
    drawing = options.write.with_suffix(".svg")
    figure(recipe, results, drawing)
    before = options.write.read_text(encoding="utf-8") if options.write.exists() else ""
    write_page(options.write, page(recipe, notes, results, tables, drawing.name, remarks(before)))
    print(f"written to {options.write} and {drawing}")


def remarks(page: str) -> str:
    """What people wrote at the end of a page."""
    found = re.search(LAST.replace(" ", r"\s+") + "(.*)", page, re.DOTALL)  # lines may have been wrapped
    return found[1].strip() if found else ""


def page(
    recipe: Any,
    notes: dict[str, Any],
    results: Sequence[Any],
    tables: str,
    drawing: str,
    last: str = "",
) -> str:
    """The page in Markdown without its answer; `last` are the remarks of an earlier one."""
    runs = {id(r): r.seconds for r in results}
    seeds = sorted({r.seed for r in results})
    versions = ", ".join(f"{name} {version}" for name, version in notes["versions"].items())
    run = recipe.run
    steps = str(run["steps"])
    if recipe.start is not None:
        start = recipe.start.settings.get("steps", run["steps"])
        others = [
            f"{recipe.label(axis, name)}: {option['start']['steps']}"
            for axis in recipe.start.axes
            for name, option in recipe.axes[axis].items()
            if "steps" in (option.get("start") or {})
        ]
        of_others = f" ({', '.join(others)})" if others else ""
        steps = f"{start} steps of the common start{of_others}, then {run['steps']}"
    return "\n".join(
        [
            f"# {recipe.title}",
            "",
            f"**Question.** {recipe.about.strip()}",
            "",
            tables.rstrip(),
            "",
            f"![{recipe.title}]({drawing})",
            "",
            HOW,
            "",
            f"`{notes['command']}`, then `python tools/tables.py FOLDER --write PAGE.md` with the folder "
            "of the runs.",
            "",
            f"{steps} training steps in every run, batches of {run['batch_size']} images; seeds "
            f"{', '.join(map(str, seeds))}. "
            "Numbers are means over the seeds ± their sample standard deviation. The words are explained in "
            "[the glossary](../glossary.md).",
            f"{notes['machine']}; {versions}. Training of the finished runs took "
            f"{sum(runs.values()) / 60:.0f} minutes of wall time, {LAST}",
            "",
            *([last, ""] if last else []),
        ]
    )


def figure(recipe: Any, results: Sequence[Any], path: Path) -> None:
    """Bars of the first report's numbers: a group a column, a bar a row, deviations as lines."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "lse"  # the same results, the same file
    import matplotlib.pyplot as plt

    report = recipe.reports[0]
    rows, columns = gather(recipe, report, results)
    shown = [*columns, *([None] if report.average else [])]
    fig, axes = plt.subplots(
        1, len(report.values), figsize=(5.2 * len(report.values), 3.4), squeeze=False, layout="constrained"
    )
    width = 0.8 / len(rows)
    for plot, value in zip(axes[0], report.values, strict=True):
        for i, row in enumerate(rows):
            found = [numbers(recipe, report, results, row, column, value) for column in shown]
            places = [j + (i - (len(rows) - 1) / 2) * width for j, n in enumerate(found) if n is not None]
            there = [n for n in found if n is not None]
            if not there:
                continue
            plot.bar(
                places, [n.mean for n in there], width, yerr=[n.deviation for n in there],
                error_kw={"lw": 0.8}, color=f"C{i}", label=recipe.label(report.rows, row),
            )  # fmt: skip
        labels = [
            "mean" if c is None else recipe.label(report.columns, c) if report.columns in recipe.axes else c
            for c in shown
        ]
        many = len(labels) > 6  # side by side they would run into each other
        labels = [label.replace(" ", "\n") if many else label for label in labels]
        plot.set_xticks(range(len(shown)), labels, fontsize=6 if many else 8)
        plot.set_title({"accuracy": "accuracy, %", "invariance_error": "InvE"}.get(value, value), fontsize=9)
        plot.spines[["top", "right"]].set_visible(False)
    # below the plots, where no bar can lie behind it
    handles, names = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)


if __name__ == "__main__":
    main()
