"""Measure how fast images are generated and warped, compared with the training that uses them.

    python tools/bench/throughput.py --threads 1 --out docs/results/throughput.md
    python tools/bench/throughput.py --device cuda --models vit_tiny_patch16_224:224:128

A model is given as NAME:PIXELS:BATCH. Sources run on the CPU, and on the device too if that is another one.
Source and training step take turns, the ratio is taken in each round. Where both run on the same processor
their times add up; where the source runs ahead on another, it is a bottleneck from a ratio of 1 on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from answers import write_page
from costs.cases import runner
from costs.timing import in_turns, machine, ratio, versions
from costs.variants import adapted

from lse_core import GridWarp, SeparableWarp, scale
from lse_data import DigitSampler, DigitsConfig
from lse_train.cpu import keep_memory
from lse_train.numbers import number_model

MODELS = ("small_resnet:48:32", "vit_tiny_patch16_224:224:8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page, or print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", default=list(MODELS), metavar="NAME:PIXELS:BATCH", help="consumers")
    add("--device", default="cpu", help="where training runs")
    add("--threads", type=int, help="CPU threads; default: torch's own number")
    add("--rounds", type=int, default=15, help="rounds of a table at most")
    add("--seconds", type=float, default=20.0, help="time for the rounds of a table; three are always run")
    add("--seed", type=int, default=0)
    add("--out", type=Path, metavar="PAGE.md", help="page to write; else it is printed")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_memory()
    given = sys.argv[1:] if arguments is None else list(arguments)
    lines = [
        "# Data generation compared with training",
        "",
        f"**Question.** Does generating and warping training images on a {options.device.upper()} slow "
        "training down?",
        "",
    ]
    end = [
        "A training step is one forward and backward pass without an optimiser. The last two columns are "
        "the time "
        "of generating",
        "or warping a batch divided by the time of the training step of the plain and of the adapted model "
        "on the "
        "same batch:",
        "medians over the rounds, with quartiles.",
        "",
        "## How it was measured",
        "",
        f"`python tools/bench/throughput.py {shlex.join(given)}`: {machine(options.device)}; {versions()}; "
        f"seed {options.seed}. Sources and training steps took turns in one process.",
    ]
    for model in options.models:
        lines += table(model, options)
        if options.out is not None:
            write_page(options.out, "\n".join([*lines, *end]) + "\n")
    if options.out is None:
        print("\n".join([*lines, *end]))


def table(model: str, options: argparse.Namespace) -> list[str]:
    """One consumer and all sources."""
    name, pixels, size = model.split(":")
    calls = {**steps(name, int(pixels), int(size), options), **sources(int(pixels), int(size), options)}
    for call in calls.values():
        call()
    taken = in_turns(calls, rounds=options.rounds, seconds=options.seconds)
    rounds = len(next(iter(taken.values())))
    lines = [
        f"## {name}, {pixels} px, batch {size}",
        "",
        f"{rounds} rounds.",
        "",
        "| | images per second | time : plain step | time : adapted step |",
        "|---|---|---|---|",
    ]
    for what, seconds in taken.items():
        ratios = (
            ["", ""]
            if what.startswith("step")
            else [str(ratio(seconds, taken[f"step, {kind}"])) for kind in ("plain", "adapted")]
        )
        lines.append(f"| {what} | {int(size) / median(seconds):.0f} | {ratios[0]} | {ratios[1]} |")
    return [*lines, ""]


def steps(name: str, pixels: int, size: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The training step of the plain and of the adapted model."""
    torch.manual_seed(options.seed)
    model = number_model(name, resolution=pixels).to(options.device).train()
    image = torch.rand(size, 1, pixels, pixels, device=options.device)
    return {
        "step, plain": runner(model, image, "training"),
        "step, adapted": runner(adapted(model, seed=options.seed), image, "training"),
    }


def sources(pixels: int, size: int, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """A batch of new digits, and batches warped at random, by device."""
    calls: dict[str, Callable[[], object]] = {}
    for device in dict.fromkeys(("cpu", options.device)):
        sampler = DigitSampler(DigitsConfig(count=1, resolution=pixels, seed=options.seed), device)
        images = torch.rand(size, 1, pixels, pixels, device=device)
        where = torch.device(device)

        def separable(x: torch.Tensor = images, where: torch.device = where) -> object:
            return scale(x, SeparableWarp.random(len(x), device=where))

        def grid(x: torch.Tensor = images, where: torch.device = where) -> object:
            return scale(x, GridWarp.random(len(x), device=where))

        made: dict[str, Callable[[], Any]] = {
            "digits generated": lambda s=sampler: s.sample(size),  # type: ignore[misc]
            "random separable warp": separable,
            "random grid warp": grid,
        }
        for what, call in made.items():
            calls[f"{what}, {device}"] = call if device == "cpu" else _finished(call)
    return calls


def _finished(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()
