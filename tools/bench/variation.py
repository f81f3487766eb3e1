"""Measure how much of a warp's effect the untrained analytic canonicalizer removes from two photographs.

python tools/bench/variation.py --out docs/results/variation.md
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from answers import write_page
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

from lse_core.resample import scale, unscale
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers import Variation

BOXES = (1, 3, 5, 9, 17, 33)
STRENGTHS = (0.8, 0.95, 0.99, 0.999)
POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "colours as they are": lambda x: x,
    "brightness alone": lambda x: x.mean(1, keepdim=True),
    "squared": lambda x: x.square(),
    "steep sigmoid at the mean": lambda x: torch.sigmoid(10 * (x - x.mean((2, 3), keepdim=True))),
    "eight soft levels": lambda x: torch.cat([torch.sigmoid(30 * (x - k / 9)) for k in range(1, 9)], 1),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the page or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--warps", type=int, default=4, help="random warps a photograph")
    parser.add_argument("--out", type=Path, help="file to write; else the page is printed")
    options = parser.parse_args(arguments)
    warps = [wild_warps(seed) for seed in range(options.warps)]
    pictures = {box: photographs(box) for box in BOXES}
    curve = {s: [left(pictures[b], warps, Variation(3, strength=s)) for b in BOXES] for s in STRENGTHS}
    pointwise = {
        name: [left(pictures[b], warps, Pointwise(feature)) for b in BOXES]
        for name, feature in POINTWISE.items()
    }
    page = report(curve, pointwise, options.warps)
    if options.out is None:
        print(page)
    else:
        write_page(options.out, page)
        print(f"written to {options.out}")


class Pointwise(nn.Module):
    """The analytic canonicalizer on pointwise features of the picture."""

    def __init__(self, feature: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.feature = feature

    def forward(self, x: Tensor) -> object:
        """The warp of a batch of pictures."""
        g = self.feature(x)
        return Variation(g.shape[1], strength=0.999, hidden=0)(g)


def photographs(box: int) -> Tensor:
    """scikit-learn's two photographs, 448 x 448, averaged over a box, (2, 3, H, W) in [0, 1]."""
    pictures = [torch.tensor(p).permute(2, 0, 1).float() / 255 for p in load_sample_images().images]
    x = F.interpolate(torch.stack(pictures), size=(448, 448), mode="bilinear", antialias=True)
    r = box // 2
    return F.avg_pool2d(F.pad(x, (r, r, r, r), mode="replicate"), box, 1)


def wild_warps(seed: int) -> SeparableWarp:
    """Two warps with slopes that fill [0.3, 3], by rejection."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    while len(found) < 2:
        w = (torch.rand(2, 4, generator=generator) - 0.5) * 2 * math.log(3)
        slopes = 4 * w.softmax(-1)
        if float(slopes.min()) >= 0.3 and 2.0 < float(slopes.max()) <= 3.0:
            found.append(w)
    return SeparableWarp.from_log_slopes(torch.stack(found))


def left(x: Tensor, warps: Sequence[SeparableWarp], canonicalizer: nn.Module) -> float:
    """Mean over warps of |canonical x - canonical warped x|^2 / |warped x - x|^2."""
    shares = []
    with torch.no_grad():
        a = unscale(x, canonicalizer(x).warp)
        for g in warps:
            y = scale(x, g)
            b = unscale(y, canonicalizer(y).warp)
            shares.append(float((a - b).square().mean() / (x - y).square().mean()))
    return statistics.mean(shares)


def report(curve: dict[float, list[float]], pointwise: dict[str, list[float]], warps: int) -> str:
    """The page."""
    head = ["| | " + " | ".join(f"box {b}" for b in BOXES) + " |", "|---|" + "---|" * len(BOXES)]
    return "\n".join(
        [
            "# The analytic canonicalizer on photographs",
            "",
            "**Question.** How much of the effect of a warp does the analytic canonicalizer `variation` "
            "remove "
            "from photographs,",
            "without any training?",
            "",
            "Share of a warp's effect on the picture that remains, by the strength of the canonicalizer:",
            "",
            *head,
            *(f"| {s:g} | " + " | ".join(f"{v:.2%}" for v in row) + " |" for s, row in curve.items()),
            "",
            "The same at strength 0.999, by the pointwise feature of the picture that the canonicalizer "
            "looks at:",
            "",
            *head,
            *(f"| {name} | " + " | ".join(f"{v:.2%}" for v in row) + " |" for name, row in pointwise.items()),
            "",
            "The photographs were averaged over a box of 1 to 33 pixels a side before they were warped. The "
            "remaining share is the",
            "mean squared difference between the canonical forms of the picture and of the warped picture, "
            "divided by that between",
            "the two pictures.",
            "",
            "## How it was measured",
            "",
            f"`python tools/bench/variation.py --warps {warps}`: scikit-learn's two photographs at 448 x 448 "
            "pixels, random separable",
            "warps with slopes within [0.3, 3].",
            "",
        ]
    )


if __name__ == "__main__":
    main()
