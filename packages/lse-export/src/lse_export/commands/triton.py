"""`lse export triton`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lse_export.commands.common import command_line, json_option, working


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("repository", type=click.Path(path_type=Path))
@click.option("--name", help="The model's name in the repository.  [default: the file's]")
@click.option("--version", type=click.IntRange(1), default=1, show_default=True, help="Its version.")
@click.option("--plan", type=click.Path(path_type=Path), help="TensorRT engine of FILE to serve instead.")
@click.option(
    "--max-batch-size", type=click.IntRange(1), help="Largest.  [default: 32, or the plan's largest]"
)
@click.option(
    "--queue-delay",
    "max_queue_delay_us",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Microseconds a request may wait for others.",
)
@click.option("--kind", default="auto", show_default=True, help="cpu, gpu or auto: where instances run.")
@click.option("--instances", type=click.IntRange(1), default=1, show_default=True, help="How many.")
@click.option("--warmup/--no-warmup", default=True, help="Run a random batch before reporting ready.")
@json_option
def triton(file: Path, repository: Path, as_json: bool, **options: Any) -> None:
    """Write the ONNX FILE into REPOSITORY, a model repository of Triton Inference Server.

    \b
    Example:
      lse export triton model.onnx models/ --name digits --max-batch-size 16
    """
    from lse_export.triton import write_triton

    with working(f"writing {repository}"):
        written = write_triton(file, repository, **options)
    if as_json:
        click.echo(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in vars(written).items()}))
        return
    click.echo(f"wrote {written.model} and {written.folder / 'config.pbtxt'}")
    click.echo(f"next: {command_line('tritonserver', f'--model-repository={repository}')}")
