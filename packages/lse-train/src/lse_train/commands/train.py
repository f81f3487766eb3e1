"""`lse train`: one run, or a recipe of many."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import click

from lse_train.commands.common import interruptible
from lse_train.cpu import keep_memory, spin_briefly

__all__ = ["train"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE",
              help="Replace a setting, such as optim.lr=1e-3; values are YAML. Repeatable.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option("--resume/--fresh", default=True, show_default=True,
              help="Continue where the run in the folder stopped, or start over.")  # fmt: skip
@click.option("--profile", help="Recipes only: for which machine everything is sized, such as cpu or gpu.")
@click.option("--scale", hidden=True, help="The former name of --profile.")
@click.option("--seeds", type=click.IntRange(1), help="Recipes only: number of seeds.")
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
    profile: str | None,
    scale: str | None,
    seeds: int | None,
    reuse: tuple[Path, ...],
    trust: bool,
    as_json: bool,
) -> None:
    """Train a run, or all runs of a recipe, as the YAML file CONFIG describes.

    A run that was interrupted or killed goes on when the same command is given again, and ends with the
    same numbers. On several GPUs or machines: torchrun --nproc-per-node N --no-python lse train ...

    \b
    Example:
      lse train run.yaml --out runs/dec --set optim.lr=5e-4 --set seed=1
      lse train tools/recipes/table2.yaml --profile cpu --seeds 3
      lse train tools/recipes/table3.yaml --profile cpu --seeds 3 --reuse runs/table2-cpu
    """
    spin_briefly()
    keep_memory()
    from lse_core.errors import LSEWarning
    from lse_train.reading import read_yaml, set_options

    if scale is not None:
        warnings.warn(f"--scale {scale} is now called --profile {scale}", LSEWarning, stacklevel=2)
        profile = profile or scale
    options = set_options(pairs)
    if "table" in read_yaml(config):
        from lse_train import recipes

        given = {"set": options, "out": out, "fresh": not resume, "profile": profile, "seeds": seeds}
        with interruptible():
            recipes.run_recipe(config, {**given, "reuse": reuse, "json": as_json, "trust": trust})
        return
    for name, value in (("--profile", profile), ("--seeds", seeds), ("--reuse", reuse or None)):
        if value is not None:
            raise click.UsageError(
                f"{name} is an option for recipes, but {config} is a single run; leave it out"
            )
    from lse_core.progress import Bars
    from lse_train.config import RunConfig

    # what is wrong with it is told before torch and all the rest are imported
    settings, place = RunConfig.read(config, options), out or Path("runs") / config.stem
    from lse_train import fit
    from lse_train.commands.evaluate import print_metrics

    follower = bool(int(os.environ.get("RANK", "0")))  # of torchrun's processes the first one speaks
    with interruptible(), Bars(hidden=follower) as bars:
        bar = bars.add("training", lines=True)

        def watch(step: int, steps: int, row: Mapping[str, float]) -> None:
            bar.update(step, steps, f"training: {_losses(row)}")

        result = fit(settings, place, resume, watch=watch, trust=trust)
    if follower:
        return
    if as_json:
        found = {"metrics": result.metrics, "folder": str(result.folder)}
        click.echo(json.dumps({**found, "seconds": result.seconds, "steps": result.steps}))
        return
    print_metrics(result.metrics)
    click.echo(f"{result.steps} steps, {result.seconds:.0f} s")
    click.echo(f"next: lse export onnx {place} --out {place}.onnx")


def _losses(row: Mapping[str, float]) -> str:
    losses = {name.removeprefix("loss/"): value for name, value in row.items() if name.startswith("loss/")}
    return ", ".join(f"{name} {value:.3g}" for name, value in losses.items()) or "..."
