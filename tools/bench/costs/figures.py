"""Drawings of the cost pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from costs.reading import Record, cost
from lse_core.atomic import replacing

__all__ = ["LEAST", "overhead_figure", "plots", "save"]

LEAST = 0.1
"""Percent drawn for an overhead that is smaller, or negative within the noise."""


def plots(columns: int, width: float = 4.6, height: float = 3.4) -> tuple[Any, list[Any]]:
    """A figure and its axes in one row; the same numbers give the same file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "lse"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, columns, figsize=(width * columns, height), squeeze=False, layout="constrained"
    )
    for plot in axes[0]:
        plot.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def save(figure: Any, path: Path) -> None:
    """Write it as SVG, without a date."""
    import matplotlib.pyplot as plt

    with replacing(path, overwrite=True) as target:
        figure.savefig(target, format="svg", metadata={"Date": None})
    plt.close(figure)


def overhead_figure(records: Sequence[Record], path: Path) -> bool:
    """Overhead in inference by model and batch, ours and the authors'; whether there was any to draw."""
    series: dict[tuple[str, int, str], dict[str, float]] = {}
    for record in records:
        case = record["case"]
        if case["mode"] != "inference" or case["group"] not in ("models", "authors"):
            continue
        names = {"models": ("adapted", "LSE"), "authors": ("authors", "authors")}[case["group"]]
        if names[0] in [r["name"] for r in record["rows"]] and (c := cost(record, names[0])) is not None:
            series.setdefault((names[1], case["batch"], case["precision"]), {})[case["model"]] = c.overhead
    if not series:
        return False
    models = list(dict.fromkeys(m for values in series.values() for m in values))
    figure, (plot,) = plots(1, 7.2)
    for (whose, batch, precision), values in series.items():
        places = [models.index(m) for m in values]
        plot.plot(
            places, [max(v, LEAST) for v in values.values()], "x" if whose == "authors" else "o",
            label=f"{whose}, batch {batch}, {precision}",
        )  # fmt: skip
    plot.axhline(5, color="grey", lw=0.8, ls="--", label="goal, 5%")
    plot.set_yscale("log")
    plot.set_ylabel("time added, %")
    plot.set_xticks(range(len(models)), [m.replace("_", "\n", 2) for m in models], fontsize=7)
    plot.legend(fontsize=7, frameon=False)
    save(figure, path)
    return True
