"""Draws the figures of the pages under docs/concepts: `python tools/site/figures.py`. Needs scikit-image."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from skimage import data
from torch import Tensor
from torch.nn import functional as F

from lse_core import SeparableWarp, card_of, scale, unscale
from lse_core.plot import draw_grid, to_array
from lse_data.compositing import cut_out, mask_in_box
from lse_dec.canonicalizers import Variation
from lse_measure.sweeps import prepared

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from photographs import lite0

CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts"


def photograph(name: str, height: int = 256) -> Tensor:
    """One of scikit-image's photographs, (1, 3, H, W) in [0, 1]."""
    pixels = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
    size = (height, round(height * pixels.shape[3] / pixels.shape[2]))
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)


def panels(rows: int, columns: int, height: float = 2.4, width: float = 3.3) -> tuple[Figure, list]:
    """A figure of equal panels without axes."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.set_axis_off()
    return figure, axes


def warps() -> None:
    """A photograph, its warped form with the grid, and the two maps."""
    image = photograph("coffee")
    slopes = torch.tensor([[[-0.6, 0.5, 0.9, -0.2, -0.6], [-0.4, 0.4, 0.8, 0.2, -0.6]]])
    warp = SeparableWarp.from_log_slopes(slopes)
    figure, axes = panels(1, 3)
    for panel, (picture, drawn, words) in zip(
        axes[0],
        [(image, SeparableWarp.identity(1), "F"), (scale(image, warp), warp, "S(F; l)")],
        strict=False,
    ):
        panel.imshow(to_array(picture[0]))
        draw_grid(panel, drawn, tuple(picture.shape[-2:]))
        panel.set_title(words)
    curves = axes[0][2]
    curves.set_axis_on()
    curves.plot([0, 1], [0, 1], color="0.8")
    for name, each in (("l_X", warp.x), ("l_Y", warp.y)):
        curves.plot(each.knots[0], each.values[0], marker="o", markersize=3, label=name)
    curves.set(xlabel="where a point was", ylabel="where it is now", aspect="equal")
    curves.legend()
    figure.savefig(CONCEPTS / "warps.png", dpi=80)


def canonical() -> None:
    """A photograph under three warps, and the canonical forms of all three."""
    image = F.avg_pool2d(photograph("coffee"), 2)
    generator = torch.Generator().manual_seed(4)
    given = [SeparableWarp.identity(1), *(SeparableWarp.random(1, 5, 3.0, generator=generator) for _ in "ab")]
    module = Variation(3, segments=32)
    figure, axes = panels(2, 3, height=2.3)
    for column, warp in enumerate(given):
        picture = scale(image, warp)
        with torch.no_grad():
            form = unscale(picture, module(picture).warp)
        axes[0][column].imshow(to_array(picture[0]))
        axes[1][column].imshow(to_array(form[0]))
        axes[0][column].set_title("as it is" if column == 0 else f"warp {column}")
        axes[1][column].set_title("canonical form")
    figure.savefig(CONCEPTS / "canonical.jpg", dpi=80, pil_kwargs={"quality": 85})


def cup() -> None:
    """One photograph whose cup is resized alone, and what real ImageNet weights say of each."""
    model = lite0()
    card = card_of(model)
    assert card.preprocess is not None
    assert card.class_names is not None
    espresso = card.class_names.index("espresso")
    image = np.ascontiguousarray(data.coffee())
    cut = cut_out(image, mask_in_box(image, (78, 15, 480, 388)))  # as in tests/photographs.json
    figure, axes = panels(1, 3)
    for panel, factor in zip(axes[0], (1.0, 0.7, 0.5), strict=True):
        picture = cut.resized(factor, factor)
        with torch.inference_mode():
            pixels = card.preprocess.normalise(prepared(picture, card.preprocess))
            share = float(model(pixels).softmax(-1)[0, espresso])
        panel.imshow(picture)
        panel.set_title(f"{factor:g} of its size: espresso {share:.2f}")
    figure.savefig(CONCEPTS / "cup.jpg", dpi=80, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    cup()
    warps()
    canonical()
