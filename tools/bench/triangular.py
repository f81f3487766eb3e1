"""Measure triangular warps: their cost, what products lose on nodes, and how well they undo known factors.

    python tools/bench/triangular.py [--source MNIST_ROOT] [--threads 1] [--out docs/results/triangular.md]

All ways of a line take turns, so that a busy machine slows all alike; the smallest time of each counts.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from answers import write_page
from torch import Tensor
from warps import machine, sample, seconds

from lse_core import SeparableWarp, TriangularWarp, unscale
from lse_core.columns import sample_columns
from lse_core.plugins import registry
from lse_train.true_scales import FAMILIES, best_warp, misfit, undo

SHAPES = ((8, 64, 14, 14), (8, 64, 56, 56), (8, 16, 16, 16), (32, 1, 96, 96))
SEGMENTS, RATIO = 8, 2.0
DIRECTIONS = ("row", "column", "diagonal")


def by_products(x: Tensor, warp: TriangularWarp, *, taps: bool = False) -> Tensor:
    """Two passes of matrix products (or a product and taps) on NCHW, as exported graphs have them."""
    h, w = x.shape[2:]
    s, t = warp.positions(h, w)
    return sample_columns(x.permute(0, 3, 2, 1), s * (w - 1), t * (h - 1), taps=taps).permute(0, 3, 2, 1)


def costs(budget: float) -> list[str]:
    """Time of each way to warp a map, the way to the coordinates included."""
    rows = [
        "| map, layout | separable, ms | triangular, ms | : separable | by products, ms | by taps, ms "
        "| grid_sample, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for b, c, h, w in SHAPES:
        g = torch.Generator().manual_seed(0)
        x = torch.rand(b, c, h, w, generator=g)
        last = x.permute(0, 2, 3, 1).contiguous()
        one = SeparableWarp.random(b, SEGMENTS, RATIO, generator=g)
        many = TriangularWarp.random(b, SEGMENTS, RATIO, columns=SEGMENTS + 1, generator=g)
        for name, job_one, job_many in (
            ("nchw", lambda: unscale(x, one), lambda: unscale(x, many)),  # noqa: B023
            ("nhwc", lambda: unscale(last, one, "nhwc"), lambda: unscale(last, many, "nhwc")),  # noqa: B023
        ):
            jobs: list[Callable[[], object]] = [job_one, job_many]
            if name == "nchw":
                jobs += [
                    lambda: by_products(x, many),  # noqa: B023
                    lambda: by_products(x, many, taps=True),  # noqa: B023
                    lambda: sample(x, 2.0 * many.lattice(h, w) - 1.0),  # noqa: B023
                ]
            times = [1e3 * t for t in seconds(jobs, "cpu", budget)]
            cells = [f"{t:.2f}" for t in times]
            cells.insert(2, f"{times[1] / times[0]:.2f}")
            cells += [""] * (6 - len(cells))
            rows.append(f"| {b} x {c} x {h} x {w}, {name} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    return rows


def products(count: int = 100) -> list[str]:
    """How far products and inverses are from what is read off at nodes, in pixels of a picture of 224."""
    rows = ["| columns x segments | product, mean | product, worst | inverse, mean | inverse, worst |"]
    rows.append("|---|---|---|---|---|")
    g = torch.Generator().manual_seed(0)
    u, v = (TriangularWarp.random(count, 8, RATIO, columns=9, generator=g, dtype=torch.float64) for _ in "uv")
    for n in (8, 16, 32, 64):
        cells = []
        for warp in (u @ v, ~u):
            off = 223 * (warp.resample(n + 1, n).lattice(57, 57) - warp.lattice(57, 57)).norm(dim=-1)
            cells += [f"{off.mean():.2f}", f"{off.max():.2f}"]
        rows.append(f"| {n + 1} x {n} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def true_scales(source: str, count: int) -> list[str]:
    """What the best warps leave of the difference from the same digits at factor 1."""
    rows = [
        "| arrangement | separable: misfit, px | triangular: misfit, px | separable: left of the difference "
        "| triangular: left of the difference |",
        "|---|---|---|---|---|",
    ]
    made: Any = registry().get("dataset", "digits")(
        count=count, scale=(0.4, 2.0), variants=2, reference=True, split="test", source=source
    )
    pictures = (made.images.float() / 255).unflatten(0, (-1, 2))
    boxes, kinds = made.boxes.unflatten(0, (-1, 2)), made.direction[::2]
    side = pictures.shape[-1] - 1
    left: dict[str, Tensor] = {}
    miss: dict[str, Tensor] = {}
    unchanged = (pictures[:, 1] - pictures[:, 0]).square().sum((1, 2, 3))
    for family in FAMILIES:
        before, after = boxes[:, 0], boxes[:, 1]
        back = undo(pictures[:, 1], before, after, family)
        left[family] = (back - pictures[:, 0]).square().sum((1, 2, 3))
        fits = [misfit(best_warp(before, after, family, order=o), before, after) for o in ("xy", "yx")]
        miss[family] = side * torch.minimum(*fits)
    for name, chosen in [("all", kinds >= 0), *((d, kinds == i) for i, d in enumerate(DIRECTIONS))]:
        cells = [f"{miss[f][chosen].mean():.2f}" for f in FAMILIES]
        cells += [f"{100 * left[f][chosen].sum() / unchanged[chosen].sum():.1f}%" for f in FAMILIES]
        rows.append(f"| {name}, {int(chosen.sum())} pictures | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each line of the first table")
    parser.add_argument("--source", default="sklearn", help="sklearn, or the root folder of MNIST")
    parser.add_argument("--count", type=int, default=300, help="pictures of digits")
    parser.add_argument("--note", default="", help="what else the machine did, for the page")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    digits = "scikit-learn's digits" if args.source == "sklearn" else "MNIST"
    paragraphs = {
        "question": "**Question.** What do triangular warps cost beside separable ones, how much is lost "
        "where products are read off at nodes, and how well could the best warp of each family "
        "undo the factors of locally scaled digits?",
        "cost": f"Forward passes on {args.threads} thread(s), {SEGMENTS} segments and {SEGMENTS + 1} "
        'columns. "Triangular" is what `lse_core.unscale` chooses; the columns behind it are the '
        "ways it chooses from. An exported graph takes products, or taps where there are fewer "
        "than 16 channels.",
        "products": f"Random warps of 9 columns and 8 segments, slopes within [1/{RATIO:g}, {RATIO:g}]: "
        "distance in pixels of a picture of 224 pixels a side, after `resample`. As chains of "
        "functions, which `@` and `~` give, they are exact.",
        "scales": f"Digits of {digits} on 96 pixels with factors in [0.4, 2.0], and the same with all "
        'factors 1. "Misfit" is the root mean square distance from where each digit should be. '
        '"Left" is the squared difference from the picture at factor 1 after the best warp '
        "(`lse_train.true_scales`), as a share of that before it. Of the orders of a triangular "
        "warp the one that fits better is taken, picture by picture.",
    }
    text = {name: textwrap.fill(words, 118) for name, words in paragraphs.items()}
    with torch.no_grad():
        page = ["# Triangular warps", "", text["question"]]
        page += ["", "## Cost", "", text["cost"], "", *costs(args.budget)]
        page += ["", "## Products and inverses on nodes", "", text["products"], "", *products()]
        page += ["", "## True scales", "", text["scales"], "", *true_scales(args.source, args.count)]
    words = ["MNIST_ROOT" if word == args.source != "sklearn" else word for word in sys.argv]
    command = shlex.join(["python", *words])
    how = f"`{command}` on {machine('cpu', args.threads)}. {args.note}".rstrip()
    page += ["", "## How it was measured", "", how]
    if args.out:
        write_page(args.out, "\n".join(page) + "\n")


if __name__ == "__main__":
    main()
