"""`lse demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lse_core.commands.common import check_device
from lse_core.errors import LSEError
from lse_train.commands.common import interruptible
from lse_train.cpu import keep_memory, spin_briefly

__all__ = ["demo"]

QUICK = "This was a quick run of a few steps: its numbers mean nothing. Leave out --quick to get real ones."


@click.command(epilog="Example: lse demo --out runs/demo --seed 1")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True,
              help="Folder of the report, the results, the model and the training runs.")  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of all randomness."
)
@click.option("--device", default="cpu", show_default=True, help="Device to train on: cpu, cuda or auto.")
@click.option("--quick", is_flag=True,
              help="Train a few steps, to see that everything works; the numbers mean nothing.")  # fmt: skip
@click.option("--fresh", is_flag=True,
              help="Start over. Without it, an interrupted demo goes on where it stopped.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the contents of results.json, not the table.")
def demo(out: Path, seed: int, device: str, quick: bool, fresh: bool, as_json: bool) -> None:
    """Make a classifier more consistent under local scaling, and show it.

    The demo trains a small ResNet on handwritten digits of moderate sizes. It then continues the training
    twice, once with augmentation alone and once with a deep equilibrium canonicalizer (DEC), and compares
    both on sizes that they have never seen. It exports the DEC model to ONNX, verifies the file, and writes
    a report with pictures. This takes a few minutes on two CPU cores. If you interrupt it, the same command
    goes on where it stopped.
    """
    spin_briefly()
    keep_memory()
    try:
        from lse_train.demo.run import run_demo
    except ModuleNotFoundError as error:
        raise LSEError(
            f"lse demo needs {error.name}, which is not installed: pip install 'lse-train[demo]'"
        ) from error
    check_device("cpu" if device == "auto" else device)
    with interruptible():
        results = run_demo(out, seed=seed, device=device, quick=quick, fresh=fresh)
    if as_json:
        click.echo(json.dumps(results, indent=2))
        if quick:
            click.echo(QUICK, err=True)
        return
    _print_table(results)
    # plain text: rich would break a long path over lines
    click.echo(f"Look at {out / 'report.html'} in a browser next. The numbers are in {out / 'results.json'}.")


def _print_table(results: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    from lse_train.demo.figures import LABELS
    from lse_train.demo.report import verdict, verification

    console = Console()
    brackets = list(results["methods"]["dec"]["accuracy_by_scale"])
    low, high = results["settings"]["train_scale"]
    method = Column("method", no_wrap=True)
    title = f"accuracy in % over all sizes and by range of sizes; training saw {low:g}-{high:g}"
    table = Table(method, "all", "InvE", *brackets, title=title, box=box.SIMPLE, pad_edge=False)
    for name, scores in results["methods"].items():
        by_scale = [f"{100 * v:.1f}" for v in scores["accuracy_by_scale"].values()]
        table.add_row(
            LABELS[name], f"{100 * scores['accuracy']:.1f}", f"{scores['invariance_error']:.3f}", *by_scale
        )
    console.print(table)
    onnx = results["onnx"]
    console.print(QUICK if results["quick"] else verdict(results["methods"])[1], soft_wrap=True)
    console.print(
        f"model.onnx has opset {onnx['opset']} and {onnx['nodes']} nodes. {verification(onnx)} It takes "
        f"{onnx['latency_ratio_vs_eager']:.2f} times as long as the model in torch.",
        soft_wrap=True,
    )
