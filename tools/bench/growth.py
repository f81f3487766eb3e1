"""Measure how the cost of a DEC grows with its input, and that it does not depend on the model around it.

    python tools/bench/growth.py --threads 1 --out docs/results/growth.md
    python tools/bench/growth.py --sweeps steps classes --rounds 10
    python tools/bench/growth.py --device cuda --batch 128

A point is one canonicalizer with its warp applied, as at a site of an adapted model; for classes and depth
it is the time of the adapted model less that of the plain one. All points of a sweep take turns in one
process.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from answers import write_page
from costs.cases import runner
from costs.counts import Counts, count
from costs.figures import plots, save
from costs.timing import Ratio, in_turns, machine, ratio, versions
from costs.variants import adapted
from torch import nn

from lse_core import unscale
from lse_dec.canonicalizers import DEC
from lse_train.cpu import keep_memory


@dataclass(frozen=True)
class Point:
    """Cost at one value of what is swept: ratio of time to the first value's, milliseconds, work."""

    value: int
    time: Ratio
    milliseconds: float
    flops: int
    kernels: int | None


Sweep = tuple[str, Sequence[int], Callable[[int, argparse.Namespace], dict[str, Callable[[], object]]]]


def at_image(pixels: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The image's site at a resolution."""
    return _site(3, pixels, 1, options=options, channels_last=False)


def at_map(side: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """A latent site on a map of `side` x `side` tokens."""
    return _site(192, side, 1, options=options)


def with_steps(steps: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Solver steps."""
    return _site(192, 14, options.batch, steps=steps, options=options)


def with_batch(batch: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Images a batch."""
    return _site(192, 14, batch, options=options)


def with_channels(channels: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Channels of the features."""
    return _site(channels, 14, options.batch, options=options)


def with_classes(classes: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Classes of the model around it."""
    return _model(options, num_classes=classes)


def with_depth(depth: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Blocks of the model around it."""
    return _model(options, depth=depth)


SWEEPS: dict[str, Sweep] = {
    "pixels": ("pixels a side of the image, batch 1", (112, 224, 448, 896), at_image),
    "tokens": ("tokens a side of a latent map of 192 channels, batch 1", (14, 28, 56, 112), at_map),
    "steps": ("solver steps, on a latent map of 14 x 14 x 192", (1, 2, 5, 10, 20), with_steps),
    "batch": ("images a batch, on a latent map of 14 x 14 x 192", (1, 2, 4, 8, 16, 32), with_batch),
    "channels": ("channels of a latent map of 14 x 14", (96, 192, 384, 768), with_channels),
    "classes": ("classes of a ViT at 96 px, two sites", (10, 1000, 20000), with_classes),
    "depth": ("blocks of a ViT at 96 px, two sites", (3, 6, 12, 24), with_depth),
}
SQUARED = ("pixels", "tokens")
"""Sweeps whose values are sides of squares: growth is judged against their area."""

CONSTANT = ("classes", "depth")
"""Sweeps over the model around the sites, on which the cost is not to depend."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sweeps, write the page after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sweeps", nargs="+", choices=tuple(SWEEPS), default=list(SWEEPS))
    add("--batch", type=int, default=8, help="images a batch where the batch is not swept")
    add("--device", default="cpu")
    add("--threads", type=int, help="CPU threads; default: torch's own number")
    add("--rounds", type=int, default=20, help="rounds of a sweep at most")
    add("--seconds", type=float, default=20.0, help="time for the rounds of a sweep; three are always run")
    add("--seed", type=int, default=0)
    add(
        "--out",
        type=Path,
        metavar="PAGE.md",
        help="page to write, with PAGE.svg beside it; else it is printed",
    )
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_memory()
    given = sys.argv[1:] if arguments is None else list(arguments)
    head = (
        f"`python tools/bench/growth.py {shlex.join(given)}`: {machine(options.device)}; {versions()}; "
        f"seed {options.seed}; residual rule, Anderson, separable warp, 5 steps where they are not swept, "
        "inference."
    )
    found: dict[str, list[Point]] = {}
    for name in options.sweeps:
        print(name, file=sys.stderr, flush=True)
        found[name] = sweep(name, options)
        if options.out is not None:
            drawing = options.out.with_suffix(".svg")
            draw(found, drawing)
            write_page(options.out, page(head, found, drawing.name))
    if options.out is None:
        print(page(head, found))


def sweep(name: str, options: argparse.Namespace) -> list[Point]:
    """All points of one sweep, in turns."""
    _, values, make = SWEEPS[name]
    made = {value: make(value, options) for value in values}
    calls = {f"{value} {part}": call for value, parts in made.items() for part, call in parts.items()}
    for call in calls.values():
        call()
    counts = {key: count(call, options.device) for key, call in calls.items()}
    taken = in_turns(calls, rounds=options.rounds, seconds=options.seconds)
    added = {value: _added(value, taken) for value in values}
    return [
        Point(
            value,
            ratio(added[value], added[values[0]]),
            1e3 * median(added[value]),
            *_work(value, counts),
        )
        for value in values
    ]


def _added(value: int, taken: dict[str, list[float]]) -> list[float]:
    """Seconds of the site, or of the adapted model less the plain one's, in every round."""
    ours, plain = taken[f"{value} ours"], taken.get(f"{value} plain")
    return ours if plain is None else [a - b for a, b in zip(ours, plain, strict=True)]


def _work(value: int, counts: dict[str, Counts]) -> tuple[int, int | None]:
    ours, plain = counts[f"{value} ours"], counts.get(f"{value} plain")
    flops, kernels = ours.flops or 0, ours.kernels
    if plain is None or kernels is None:
        return flops, kernels
    return flops - (plain.flops or 0), kernels - (plain.kernels or 0)


def _site(
    channels: int,
    side: int,
    batch: int,
    *,
    options: argparse.Namespace,
    steps: int = 5,
    channels_last: bool = True,
) -> dict[str, Callable[[], object]]:
    torch.manual_seed(options.seed)
    dec = DEC(channels, steps=steps).to(options.device).eval()
    nn.init.normal_(dec.update.head.weight, std=0.1)
    shape = (batch, side, side, channels) if channels_last else (batch, channels, side, side)
    features = torch.randn(shape, device=options.device)

    @torch.no_grad()
    def run() -> None:
        warp = dec(features, channels_last=channels_last).warp
        unscale(features, warp, "nhwc" if channels_last else "nchw")
        if features.is_cuda:
            torch.cuda.synchronize()

    return {"ours": run}


def _model(options: argparse.Namespace, **settings: Any) -> dict[str, Callable[[], object]]:
    torch.manual_seed(options.seed)
    plain = timm.create_model("vit_tiny_patch16_224", img_size=96, **settings).to(options.device).eval()
    image = torch.randn(options.batch, 3, 96, 96, device=options.device)
    ours = adapted(plain, seed=options.seed)
    return {"plain": runner(plain, image, "inference"), "ours": runner(ours, image, "inference")}


def exponent(name: str, points: Sequence[Point]) -> float:
    """p of time ~ size^p from the middle point to the last, the size of a square being its area."""
    first, last = points[len(points) // 2], points[-1]
    sizes = math.log(last.value / first.value) * (2 if name in SQUARED else 1)
    return math.log(last.time.median / first.time.median) / sizes


def page(head: str, found: dict[str, list[Point]], drawing: str | None = None) -> str:
    """The page in Markdown."""
    lines = [
        "# How the cost of a DEC grows",
        "",
        "**Question.** How does the time of one canonicalizer grow with the size of its input, the solver "
        "steps, "
        "the batch and",
        "the channels, and does it depend on the model around it?",
        "",
        "Each row is the time of one canonicalizer and of applying its warp; for classes and depth it is the "
        'time of the adapted model less that of the plain one. "Time : first row" is the median over the '
        "rounds, with quartiles. The exponent p describes the growth of the time as size^p from the middle "
        "row "
        "to the last, where the size of a square is its area: p = 1 is linear growth, and fixed costs make p "
        "smaller.",
        "",
    ]
    if drawing is not None:
        lines += [f"![Growth of the cost]({drawing})", ""]
    for name, points in found.items():
        lines += [
            f"## {SWEEPS[name][0][0].upper()}{SWEEPS[name][0][1:]}",
            "",
            f"| {name} | time : first row (quartiles) | milliseconds | MFLOP | kernel calls |",
            "|---|---|---|---|---|",
        ]
        for p in points:
            kernels = "-" if p.kernels is None else str(p.kernels)
            lines.append(f"| {p.value} | {p.time} | {p.milliseconds:.2f} | {p.flops / 1e6:.1f} | {kernels} |")
        lines += ["", _verdict(name, points), ""]
    lines += ["## How it was measured", "", head]
    return "\n".join(lines).rstrip() + "\n"


def _verdict(name: str, points: Sequence[Point]) -> str:
    if name in CONSTANT:
        same = len({(p.flops, p.kernels) for p in points}) == 1
        return (
            "The canonicalizers add the same number of operations in every row."
            if same
            else "The number of operations that the canonicalizers add differs between rows."
        )
    return f"Exponent: {exponent(name, points):.2f}."


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """Time against size, both relative to the first point, with the line of linear growth."""
    figure, (plot,) = plots(1, 5.6, 4.0)
    largest = 1.0
    for name, points in found.items():
        power = 2 if name in SQUARED else 1
        sizes = [(p.value / points[0].value) ** power for p in points]
        times = [p.time.median for p in points]
        largest = max(largest, *sizes)
        plot.plot(sizes, times, "--" if name in CONSTANT else "-", marker="o", ms=3, label=name)
    plot.plot([1, largest], [1, largest], color="grey", lw=0.8, ls=":", label="linear")
    plot.set(xscale="log", yscale="log", xlabel="size : first size", ylabel="time : first time")
    plot.legend(fontsize=7, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
