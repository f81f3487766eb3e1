"""`lse demo`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lse_core.process import keep_memory, spin_briefly


@click.command(
    epilog="Example: lse demo --out runs/demo --seed 1",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True,
              help="Folder for results.json, report.html, model.onnx and the model, dec/.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all randomness.")
@click.option("--device", default="cpu", show_default=True, help="Torch device to train on, such as cuda.")
@click.option("--quick", is_flag=True, help="A run cut short, to see that everything works.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of the table.")
def demo(out: Path, seed: int, device: str, quick: bool, as_json: bool) -> None:
    """Make a classifier more consistent under local scaling, and show it.

    Trains a small ResNet on handwritten digits of moderate sizes, continues it once with augmentation
    alone and once with a deep equilibrium canonicalizer (DEC), compares both on sizes never seen,
    exports the DEC model to ONNX, verifies it, and writes a report. A few minutes on two CPU cores.
    """
    spin_briefly()
    keep_memory()
    import torch
    from rich.console import Console

    from lse_core.errors import LSEError
    from lse_train.demo.run import run_demo
    from lse_train.demo.settings import DemoSettings

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LSEError(f"device {device!r} cannot be used here; try --device cpu") from error
    settings = replace(DemoSettings(), seed=seed, device=device)
    console = Console(stderr=as_json)
    with _progress(console) as progress:
        results = run_demo(settings.quick() if quick else settings, out, progress, quick=quick)
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    _print_table(console, results)
    # plain text: rich would break a long path over lines
    click.echo(f"Look at {out / 'report.html'} in a browser next; the numbers are in {out / 'results.json'}.")


@contextmanager
def _progress(console: Any) -> Iterator[Callable[[str, int], Callable[[], None]]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:

        def start(phase: str, total: int) -> Callable[[], None]:
            if not console.is_terminal:  # bars are drawn at the end only where nothing can be redrawn
                console.print(f"{phase} ...")
            task = bar.add_task(phase, total=total)
            return lambda: bar.advance(task)

        yield start


def _print_table(console: Any, results: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Column, Table

    from lse_train.demo.figures import LABELS
    from lse_train.demo.report import verdict, verification

    brackets = list(results["methods"]["dec"]["accuracy_by_scale"])
    method = Column("method", no_wrap=True)
    title = "accuracy in % over all sizes and by range of sizes; training saw 0.8-1.25"
    table = Table(method, "all", "InvE", *brackets, title=title, box=box.SIMPLE, pad_edge=False)
    for name, scores in results["methods"].items():
        by_scale = [f"{100 * v:.1f}" for v in scores["accuracy_by_scale"].values()]
        table.add_row(
            LABELS[name], f"{100 * scores['accuracy']:.1f}", f"{scores['invariance_error']:.3f}", *by_scale
        )
    console.print(table)
    console.print(verdict(results["methods"])[1], soft_wrap=True)
    onnx = results["onnx"]
    console.print(
        f"model.onnx: opset {onnx['opset']}, {onnx['nodes']} nodes, {verification(onnx)}; "
        f"{onnx['latency_ratio_vs_eager']:.2f} times the eager model's time",
        soft_wrap=True,
    )
