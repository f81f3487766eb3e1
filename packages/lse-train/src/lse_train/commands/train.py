"""`lse train`: one run, or a recipe of many."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from lse_core.process import keep_memory, spin_briefly

__all__ = ["train"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE",
              help="Replace a setting, as in optim.lr=1e-3; values are YAML. Repeatable.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option("--resume/--fresh", default=True, show_default=True,
              help="Go on where the folder's run stopped, or start over.")  # fmt: skip
@click.option("--scale", help="Recipes only: the size of everything, such as cpu or gpu.")
@click.option("--seeds", type=click.IntRange(1), help="Recipes only: how many seeds.")
@click.option("--reuse", multiple=True, type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Recipes only: results of another recipe, whose runs of the same settings are copied "
                   "and not trained again. Repeatable.")  # fmt: skip
@click.option("--trust", is_flag=True,
              help="Import and call functions and classes that CONFIG names as module:name; only if you know "
                   "where it comes from.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def train(
    config: Path,
    pairs: tuple[str, ...],
    out: Path | None,
    resume: bool,
    scale: str | None,
    seeds: int | None,
    reuse: tuple[Path, ...],
    trust: bool,
    as_json: bool,
) -> None:
    """Train as the YAML file CONFIG says: one run, or a recipe (a file with the key `table`).

    A run that was interrupted or killed goes on when the same command is given again, and ends with the
    same numbers. On several GPUs or machines: torchrun --nproc-per-node N --no-python lse train ...

    \b
    Example:
      lse train run.yaml --out runs/dec --set optim.lr=5e-4 --set seed=1
      lse train tools/recipes/table2.yaml --scale cpu --seeds 3
      lse train tools/recipes/table3.yaml --scale cpu --seeds 3 --reuse runs/table2-cpu
    """
    spin_briefly()
    keep_memory()
    from lse_train.reading import read_yaml, set_options

    options = set_options(pairs)
    place = out or Path("runs") / config.stem
    if "table" in read_yaml(config):
        recipes: Any = import_module("lse_train.recipes")
        recipes.run_recipe(
            config,
            {
                "set": options,
                "out": out,
                "fresh": not resume,
                "scale": scale,
                "seeds": seeds,
                "reuse": reuse,
                "json": as_json,
                "trust": trust,
            },
        )
        return
    for name, value in (("--scale", scale), ("--seeds", seeds), ("--reuse", reuse or None)):
        if value is not None:
            raise click.UsageError(f"{name} is for recipes; {config} is one run")
    from lse_train import RunConfig, RunInterruptedError, fit

    settings = RunConfig.read(config, options)
    try:
        with _progress() as watch:
            result = fit(settings, place, resume, watch=watch, trust=trust)
    except RunInterruptedError as error:
        if not int(os.environ.get("RANK", "0")):
            click.echo(str(error), err=True)
        sys.exit(130)
    if int(os.environ.get("RANK", "0")):
        return
    if as_json:
        found = {"metrics": result.metrics, "folder": str(result.folder)}
        click.echo(json.dumps({**found, "seconds": result.seconds, "steps": result.steps}))
        return
    from lse_train.commands.evaluate import print_metrics

    if result.metrics:
        print_metrics(result.metrics)
    click.echo(f"{result.steps} steps, {result.seconds:.0f} s")
    click.echo(f"next: lse export onnx {place} --out {place}.onnx")


@contextmanager
def _progress() -> Iterator[Any]:
    """What shows each step: a bar where it can be redrawn, else a line for each tenth of the run."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if int(os.environ.get("RANK", "0")):
        yield None
        return
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("{task.description}"), console=console)
    task = bar.add_task("")
    with ExitStack() as shown:

        def watch(step: int, steps: int, row: Mapping[str, float]) -> None:
            if not bar.live.is_started:  # with the first step, not above what is wrong before it
                shown.enter_context(bar)
            text = _shown(row)
            bar.update(task, completed=step, total=steps, description=text)
            if not console.is_terminal and step * 10 // steps > (step - 1) * 10 // steps:
                console.print(f"step {step} of {steps}: {text}", soft_wrap=True, highlight=False)

        yield watch


def _shown(row: Mapping[str, float]) -> str:
    losses = [
        f"{name.partition('/')[2]} {value:.3g}" for name, value in row.items() if name.startswith("loss/")
    ]
    return ", ".join(losses) or "..."
