"""Latency of adapted models in every way they can run here, beside the plain models and in the same run.

    OMP_NUM_THREADS=1 python tools/bench/deployment.py --out docs/results/bench.md

What `lse bench` prints for a saved model, for several timm models with random weights: none of the operators'
cost depends on their values.
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
        f"Sites {sites}, solver {SOLVER}, {STEPS} steps.",
        "",
        "| way | model | ms (quartiles) | images/s | adapted : plain | to eager |",
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
        f"`python {shlex.join(sys.argv)}`: {machine}; torch {torch.__version__}, ONNX Runtime "
        f"{onnxruntime.__version__}, timm {timm.__version__}, Python {platform.python_version()}.",
        "Random weights, seed 0, 224 x 224 pixels. All rows of a table ran in turns, "
        f"{args.rounds} rounds after 3 to warm up.",
        "Milliseconds carry whatever else the machine did; read the ratios, medians over the turns.",
        "",
    ]
    for batch in args.batches:
        for name in args.models:
            table = section(name, batch, *measure(name, batch, args.ways, args.rounds, args.device))
            print("\n".join(table), flush=True)
            lines += table
            if args.out:  # after every table: the whole takes minutes
                args.out.write_text("\n".join(lines), "utf-8")


if __name__ == "__main__":
    main()
