"""The figures of the report of `lse measure`: curves by level, NERO plots, and the layers' bar chart.

Figures have no background and are drawn in colours that can be read on white and on black, each as wide as a
small screen. Names come from strangers' folders and models, so no text is taken as mathematics or as a hidden
label.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lse_core.html import embedded
from lse_core.measuring.measurement import Numbers, Orbit, Sweep

__all__ = ["cases_figure", "levels_figure", "nero_figure", "plain", "stages_figure"]

INK = "#7d838c"  # of text and axes: readable on white and on black
COLOURS = ("#3b82c4", "#d9534f", "#2a9d5c", "#c77d0a", "#8e6bbf", "#0e9aa7", "#b4567d", "#7a8b3a")
SIZE = (4.4, 2.9)  # inches
AXES = {
    "factor": "factor of the object's size",
    "ratio": "bound r on the warp's slopes",
    "degrees": "degrees",
}
STYLE: Mapping[str, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.transparent": True,
}


def plain(text: str, most: int = 60) -> str:
    """A text that every page and picture can hold: no control characters, at most `most` long."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= most else f"{shown[: most - 12]}…{shown[-11:]}"


@contextmanager
def _styled() -> Iterator[None]:
    with matplotlib.rc_context(dict(STYLE)), warnings.catch_warnings():
        # a name's letters may be missing in the font that measures text; the browser has others
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def _levels(ax: Any, sweep: Sweep) -> list[float]:
    """Set up the axis of levels: factors and bounds are spread as logarithms; returns the levels."""
    values = [level.level for level in sweep.levels]
    if sweep.unit != "degrees":
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    shown = values if len(values) <= 7 else values[:: max(1, len(values) // 6)]
    ax.set_xticks(shown, [f"{v:.3g}" for v in shown])
    ax.set_xlabel(AXES[sweep.unit])
    ax.grid(True)
    return values


def cases_figure(sweep: Sweep, colour: int = 0) -> str:
    """Probability of the first answer by level: each case in grey, their mean and the worst. A data URI."""
    with _styled():
        figure = Figure(figsize=SIZE)
        ax = figure.subplots()
        levels = _levels(ax, sweep)
        for case in sweep.cases[:300]:
            ax.plot(levels, _values(case.probability), color=INK, lw=0.6, alpha=0.45)
        paint = COLOURS[colour % len(COLOURS)]
        ax.plot(levels, _values([level.probability for level in sweep.levels]), color=paint, lw=2.2)
        ax.plot(levels, _values([level.worst for level in sweep.levels]), color=paint, lw=1.4, ls="--")
        ax.set_ylim(-0.02, 1.02)
        return embedded(figure)


def levels_figure(sweeps: Sequence[tuple[str, Sweep]], value: str, *, share: bool = False) -> str | None:
    """One number by level, a line for each model; None where no model has it. A data URI.

    Args:
        sweeps: names of models with their sweeps of one change.
        value: attribute of `Level`.
        share: the number is a share, drawn in percent.
    """
    known = [
        (k, name, sweep, [getattr(level, value) for level in sweep.levels])
        for k, (name, sweep) in enumerate(sweeps)
    ]
    known = [entry for entry in known if any(number is not None for number in entry[3])]
    if not known:
        return None
    with _styled():
        figure = Figure(figsize=SIZE)
        ax = figure.subplots()
        for k, name, sweep, numbers in known:
            levels = _levels(ax, sweep)
            values = _values(numbers) * (100 if share else 1)
            label = f"\N{ZERO WIDTH SPACE}{plain(name, 32)}"  # a leading underscore would hide it
            ax.plot(levels, values, color=COLOURS[k % len(COLOURS)], marker="o", ms=3, label=label)
        ax.set_ylim(bottom=0, top=102 if share and ax.get_ylim()[1] > 50 else None)
        if len(known) > 1:
            ax.legend(fontsize=8, frameon=False)
        return embedded(figure)


def nero_figure(orbit: Orbit) -> str:
    """Factor in x against factor in y, the mean probability of the first answer as colour. A data URI."""
    with _styled():
        figure = Figure(figsize=(4.4, 3.6))
        ax = figure.subplots()
        cells = np.array([_values(row) for row in orbit.probability])
        image = ax.imshow(cells, origin="lower", cmap="viridis", vmin=0, vmax=1)
        ticks = [f"{factor:.3g}" for factor in orbit.factors]
        ax.set_xticks(range(len(ticks)), ticks)
        ax.set_yticks(range(len(ticks)), ticks)
        ax.set(xlabel="factor in x", ylabel="factor in y")
        if len(ticks) <= 9:
            for (row, column), number in np.ndenumerate(cells):
                if np.isfinite(number):
                    ink = "white" if number < 0.6 else "black"
                    text = f"{number:.2f}"
                    ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=7)
        figure.colorbar(image, ax=ax, fraction=0.046)
        return embedded(figure)


def stages_figure(shares: Mapping[str, float], sites: Sequence[str]) -> str:
    """Bars of the layers' shares by stage, in percent; the sites to try first are marked. A data URI."""
    with _styled():
        figure = Figure(figsize=(4.4, 0.7 + 0.27 * len(shares)))
        ax = figure.subplots()
        names = list(shares)
        paint = [COLOURS[1] if name in sites else COLOURS[0] for name in names]
        bars = ax.barh(range(len(names)), [100 * shares[name] for name in names], color=paint)
        ax.bar_label(bars, [f"{100 * shares[name]:.0f}%" for name in names], padding=3, fontsize=8)
        ax.set_yticks(range(len(names)), [plain(name or "model", 32) for name in names])
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set_xlabel("share in the change of the answer, %")
        ax.grid(True, axis="x")
        return embedded(figure)


def _values(numbers: Numbers | Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers as an array, NaN for those that do not exist."""
    return np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
