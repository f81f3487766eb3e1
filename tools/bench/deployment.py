"""Time adapted and plain models in every way in which they can run on this machine.

    OMP_NUM_THREADS=1 python tools/bench/deployment.py --out docs/results/bench.md

The script measures what `lse bench` measures of a saved model, for several timm models with random weights.
The weights do not matter: no operator's time depends on them.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from pathlib import Path

import onnxruntime
import timm
import torch
from answers import write_page

from lse_dec import adapt, unadapt
from lse_export.bench import WAYS, BenchRow, bench

MODELS = ("vit_tiny_patch16_224", "resnet18")
SOLVER, STEPS = "anderson", 5


def measure(name: str, batch: int, ways: list[str], rounds: int, device: str) -> tuple[list[BenchRow], str]:
    """Rows of one model, and its sites."""
    torch.manual_seed(0)
    adapted = adapt(timm.create_model(name), solver=SOLVER, steps=STEPS).eval().to(device)
    sites = " and ".join(f"`{site}`" for site in adapted.canonicalizers)
    plain = unadapt(adapt(timm.create_model(name), solver=SOLVER, steps=STEPS)).eval().to(device)
    example = torch.randn(batch, 3, 224, 224, device=device)
    return bench({"plain": plain, "adapted": adapted}, example, ways=ways, rounds=rounds), sites


def section(name: str, batch: int, rows: list[BenchRow], sites: str) -> list[str]:
    """One table."""
    lines = [
        f"## {name}, batch {batch}",
        "",
        f"Canonicalizers at {sites}, solver {SOLVER}, {STEPS} steps.",
        "",
        "| way | model | milliseconds (quartiles) | images per second | adapted : plain | way : eager |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.error:
            lines.append(f"| {row.way} | {row.model} | not here: {row.error} | | | |")
            continue
        low, high = row.spread
        lines.append(
            f"| {row.way} | {row.model} | {row.milliseconds:.1f} ({low:.1f} to {high:.1f}) "
            f"| {row.throughput:.1f} | {row.ratio:.2f} | {row.to_first_way:.2f} |"
        )
    return [*lines, ""]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["eager", "compiled", "ort-cpu"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 1])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    machine = (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} thread(s) used, no GPU"
        if args.device == "cpu"
        else torch.cuda.get_device_name()
    )
    lines = [
        "# Latency of exported models",
        "",
        "**Question.** How long do a plain model and the same model with canonicalizers take in eager "
        "PyTorch, "
        "compiled by",
        "`torch.compile`, and exported to ONNX Runtime?",
        "",
        'A time is that of one batch, the median over all rounds with its quartiles. "Adapted : plain" is '
        "the "
        "time of the",
        'adapted model divided by that of the plain model run in the same way; "way : eager" is the time '
        "of a "
        "model divided by",
        "that of the same model in eager PyTorch. Both are medians of the ratios within a round.",
        "",
    ]
    end = [
        "## How it was measured",
        "",
        f"`python {shlex.join(sys.argv)}`: {machine}; torch {torch.__version__}, ONNX Runtime "
        f"{onnxruntime.__version__}, timm {timm.__version__}, Python {platform.python_version()}.",
        "Random weights, seed 0, images of 224 x 224 pixels. The rows of a table took turns, for "
        f"{args.rounds} rounds after 3 rounds of",
        "warming up. Milliseconds depend on what else the machine does; the ratios depend on it less.",
        "",
    ]
    for batch in args.batches:
        for name in args.models:
            table = section(name, batch, *measure(name, batch, args.ways, args.rounds, args.device))
            print("\n".join(table), flush=True)
            lines += table
            if args.out:  # after every table: the whole takes minutes
                write_page(args.out, "\n".join([*lines, *end]))


if __name__ == "__main__":
    main()
