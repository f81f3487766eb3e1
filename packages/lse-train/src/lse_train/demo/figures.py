"""The report's pictures, as self-contained SVG or PNG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lse_core.card import card_of
from lse_core.monotone import uniform_knots
from lse_core.resample import unscale
from lse_core.separable import SeparableWarp
from lse_data import build_digits
from lse_dec.adaptation import AdaptedModel

__all__ = [
    "accuracy_figure",
    "canonical_figure",
    "normalised",
    "residual_figure",
    "samples_figure",
    "warps_figure",
]

COLOURS = {"aug": "#8a8f98", "aug_continued": "#3b6fb6", "dec": "#d1495b"}
LABELS = {"aug": "Aug", "aug_continued": "Aug continued", "dec": "DEC"}
SEEN = "0.8-1.25"
"""The range of factors that training sees."""
SAME_DIGITS_AT = (0.5, 0.7, 1.0, 1.4, 1.9)


def normalised(model: AdaptedModel, images: Tensor) -> Tensor:
    """uint8 images (N, 1, R, R) as the model wants them: float32, by its card, on its device."""
    preprocess = card_of(model).preprocess
    assert preprocess is not None
    return preprocess.normalise(images.to(next(model.parameters()).device).float() / 255)


def samples_figure(tests: Mapping[str, Any]) -> Figure:
    """Rows of test images: the same numbers at factor 1 and resized digit by digit.

    Args:
        tests: settings of the test images, see `lse_data.build_digits`.
    """
    data = build_digits(**{**tests, "count": 3, "variants": 6, "reference": True})
    images = data.images[:, 0].unflatten(0, (3, 6))
    figure = Figure(figsize=(9, 4.6))
    for i, axes in enumerate(figure.subplots(3, 6).ravel()):
        row, column = divmod(i, 6)
        _picture(axes, images[row, column])
        factors = data.scales[i].tolist()
        title = "factor 1" if column == 0 else " ".join(f"{f:.1f}" for f in factors)
        axes.set_title(title, fontsize=8)
        if column == 0:
            axes.set_ylabel(f"{int(data.labels[i]):03d}", fontsize=10)
    return figure


def canonical_figure(model: AdaptedModel, tests: Mapping[str, Any]) -> Figure:
    """The same digits at several scales: what came in, with its canonical grid drawn on, and what goes on.

    Args:
        model: with a canonicalizer at the image.
        tests: settings of the test images, see `lse_data.build_digits`.
    """
    numbers, seed = 3, tests["seed"] + 1
    changed = {"count": numbers, "seed": seed, "variants": 1, "reference": False}
    sets = [build_digits(**{**tests, **changed, "scale": (s, s)}) for s in SAME_DIGITS_AT]
    images = torch.cat([data.images for data in sets])
    x = normalised(model, images)
    with torch.no_grad():
        warp = model.canonicalizers["image"](x).warp
    assert isinstance(warp, SeparableWarp)
    canonical = unscale(images.to(x.device).float(), warp).round().to(torch.uint8).cpu()[:, 0]
    columns = len(SAME_DIGITS_AT)
    figure = Figure(figsize=(9, 1.95 * 2 * numbers))
    grid = figure.subplots(2 * numbers, columns)
    for number in range(numbers):
        for column, factor in enumerate(SAME_DIGITS_AT):
            i = column * numbers + number
            top, bottom = grid[2 * number, column], grid[2 * number + 1, column]
            _picture(top, images[i, 0])
            _draw_grid(top, warp[i], images.shape[-1])
            _picture(bottom, canonical[i])
            top.set_title(f"all digits x {factor:g}", fontsize=8)
            if column == 0:
                top.set_ylabel(f"{int(sets[0].labels[number]):03d} in", fontsize=9)
                bottom.set_ylabel("canonical", fontsize=9)
    figure.tight_layout()
    return figure


def warps_figure(warp: SeparableWarp, scales: Tensor) -> Figure:
    """Horizontal and vertical maps of many test images, coloured by their digits' mean factor.

    Args:
        warp: canonical warps, batch B.
        scales: (B, 3) resize factors.
    """
    u = uniform_knots(64, dtype=torch.float32)
    figure = Figure(figsize=(9, 3.4))
    colours = matplotlib.colormaps["viridis"]
    mean = scales.mean(1)
    low, high = float(mean.min()), float(mean.max())
    axes = figure.subplots(1, 2)
    for ax, axis_map, name in zip(axes, (warp.x, warp.y), ("horizontal", "vertical"), strict=True):
        for values, m in zip(axis_map.to("cpu")(u), mean, strict=True):
            ax.plot(u, values, color=colours((float(m) - low) / max(high - low, 1e-6)), lw=0.6, alpha=0.7)
        ax.plot([0, 1], [0, 1], color="black", lw=0.8, ls="--")
        ax.set_xlabel("canonical coordinate")
        ax.set_title(f"{name} map l", fontsize=9)
    axes[0].set_ylabel("image coordinate")
    norm = matplotlib.colors.Normalize(low, high)
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(norm, colours), ax=axes)
    bar.set_label("mean resize factor")
    return figure


def accuracy_figure(methods: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy and InvE per range of the resize factor, one line a method; `methods` as in results.json."""
    brackets = list(next(iter(methods.values()))["accuracy_by_scale"])
    figure = Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2)
    for method, scores in methods.items():
        style: dict[str, Any] = {"color": COLOURS[method], "label": LABELS[method], "marker": "o"}
        left.plot([100 * scores["accuracy_by_scale"][b] for b in brackets], **style)
        right.plot([scores["invariance_error_by_scale"][b] for b in brackets], **style)
    seen = brackets.index(SEEN)
    for ax, title in ((left, "accuracy, %"), (right, "InvE (lower is better)")):
        ax.set_xticks(range(len(brackets)), brackets)
        ax.axvspan(seen - 0.3, seen + 0.3, color="#f2e3b3", zorder=0, label="seen in training")
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("resize factor")
        ax.grid(alpha=0.3)
    left.legend(fontsize=8)
    return figure


def residual_figure(residuals: Mapping[str, np.ndarray], trained_steps: int) -> Figure:
    """Fixed-point residual by solver step: median and 10 to 90 % of test images, one band a solver.

    Args:
        residuals: (K, B) root mean squares of log-slopes, by solver.
        trained_steps: steps the exported model takes, marked.
    """
    figure = Figure(figsize=(9, 3.2))
    ax = figure.subplots()
    styles = {"naive": "#8a8f98", "anderson": "#d1495b", "broyden": "#3b6fb6"}
    for solver, values in residuals.items():
        k = np.arange(1, len(values) + 1)
        low, middle, high = np.nanpercentile(values, [10, 50, 90], axis=1)
        ax.plot(k, middle, color=styles.get(solver), label=solver, marker=".")
        ax.fill_between(k, low, high, color=styles.get(solver), alpha=0.12)
    ax.axvline(trained_steps, color="black", lw=0.8, ls=":", label="steps of the exported model")
    ax.set_yscale("log")
    ax.set_xlabel("solver step")
    ax.set_title("fixed-point residual |f(w) - w|", fontsize=9)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return figure


def _picture(axes: Any, image: Tensor | Sequence) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_grid(axes: Any, warp: SeparableWarp, resolution: int, lines: int = 9) -> None:
    """Lines of a regular canonical grid where they lie in the image: dense where the image is stretched."""
    u = uniform_knots(lines - 1, dtype=torch.float32)
    small = warp.to("cpu")
    for value in small.x(u)[0].tolist():
        axes.axvline(value * (resolution - 1), color="#ffb703", lw=0.6)
    for value in small.y(u)[0].tolist():
        axes.axhline(value * (resolution - 1), color="#ffb703", lw=0.6)
