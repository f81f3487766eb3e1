"""Measure the nodes of an exported graph and the time of the export by solver and number of steps K.

Run from the root: python tools/bench/export_time.py --out docs/results/export_time.md
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from answers import printed_to
from torch import Tensor, nn

import lse_export
from lse_dec import adapt

SOLVERS = ("naive", "anderson", "anderson-i", "broyden")
STEPS = (1, 2, 5, 10)


class Region:
    """A canonicalizer's way of solving, with the update marked as a region that torch traces once.

    Args:
        gradient: the way, see `lse_dec.gradients`.
    """

    def __init__(self, gradient: Any) -> None:
        self.gradient = gradient

    def solve(self, update: Callable[[Tensor], Tensor], start: Tensor, solver: Any, **options: Any) -> Any:
        """As the way itself."""
        once = torch.compiler.nested_compile_region(lambda z: update(z))
        return self.gradient.solve(once, start, solver, **options)


def adapted(solver: str) -> nn.Module:
    """A one-block vit_tiny of 32 px with one site, its input."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, num_classes=10)
    return adapt(model, ["image"], solver=solver, resolution=8, segments=4).eval()


def measured(model: nn.Module, steps: int, folder: Path, *, dynamic: bool = True) -> tuple[float, Any]:
    """Seconds of the processor, and the report, of one export that was verified."""
    example = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    path = folder / "model.onnx"
    began = time.process_time()
    report = lse_export.export_onnx(model, example, path, steps=steps, dynamic_batch=dynamic, overwrite=True)
    seconds = time.process_time() - began
    lse_export.verify(path, model, example, batch_sizes=(1, 3) if dynamic else (2,))
    return seconds, report


def by_steps(solvers: Sequence[str], counts: Sequence[int], folder: Path) -> None:
    """Print the table of nodes and seconds."""
    print(
        "| solver | K | nodes | nodes of the canonicalizer | nodes per step | time : K = 1 | tracing | "
        "simplifying |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for solver in solvers:
        first = None
        for steps in counts:
            seconds, report = measured(adapted(solver), steps, folder)
            first = first or seconds
            traced, simplified = (report.phases[k] / report.seconds for k in ("trace", "simplify"))
            print(
                f"| {solver} | {steps} | {report.nodes} | {report.canonicalizer_nodes} | "
                f"{report.nodes_per_step:g} | {seconds / first:.2f} | {traced:.0%} | {simplified:.0%} |",
                flush=True,
            )


def as_region(solvers: Sequence[str], counts: Sequence[int], folder: Path) -> None:
    """Print what it costs to trace the update once and call it K times."""
    print("| solver | K | time : tracing every step | same number of nodes |\n|---|---|---|---|")
    for solver in solvers:
        for steps in counts:
            plain, report = measured(adapted(solver), steps, folder, dynamic=False)
            model: Any = adapted(solver)
            for canonicalizer in model.canonicalizers.values():
                canonicalizer.gradient = Region(canonicalizer.gradient)
            once, other = measured(model, steps, folder, dynamic=False)
            same = "yes" if other.nodes == report.nodes else f"{other.nodes}, not {report.nodes}"
            print(f"| {solver} | {steps} | {once / plain:.2f} | {same} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Export with every solver and number of steps, and write the page or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--solvers", nargs="+", default=SOLVERS)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--out", type=Path, help="page to write; else it is printed")
    options = parser.parse_args(arguments)
    with printed_to(options.out):
        report(options)


def report(options: argparse.Namespace) -> None:
    """Print the page."""
    print("# Nodes and export time by solver steps\n")
    print(
        "**Question.** How do the size of an exported graph and the time of the export grow with the "
        "number of "
        "solver steps K?\n"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured(adapted("naive"), 1, folder)  # what torch and onnxscript do the first time only
        by_steps(options.solvers, options.steps, folder)
        print(
            '\n"Time" is processor time, as a multiple of the same solver\'s first row. "Tracing" and '
            '"simplifying" are shares of the'
            "\nexport's time. The next table marks the update with `torch.compiler.nested_compile_region`, "
            "so that "
            "torch traces it\nonce and calls it K times, at a fixed batch size:\n"
        )
        as_region(options.solvers[:2], options.steps[-2:], folder)
    print(
        "\n## How it was measured\n\n`python tools/bench/export_time.py`: a ViT of one block (vit_tiny) at "
        "32 x 32 "
        "pixels with one canonicalizer at its input (4 segments); every exported file was verified. 2 "
        "cores, no "
        f"GPU, Python {platform.python_version()}, torch {torch.__version__}."
    )


if __name__ == "__main__":
    main()
