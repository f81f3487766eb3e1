"""What the commands share: their options, and showing that work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click

size_option = click.option(
    "--size",
    nargs=2,
    type=click.IntRange(1),
    metavar="HEIGHT WIDTH",
    help="Image size.  [default: the model's]",
)
images_option = click.option(
    "--images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Picture or folder of pictures; repeat for several.  [default: two made-up images]",
)
trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Import and call what the model's folder names; only for folders that you made or know.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def force_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add `--force`, which replaces `what`."""
    return click.option("--force", is_flag=True, help=f"Replace an existing {what}.")


def tensorrt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--trt-...` for ONNX Runtime's TensorRT provider.

    The command gets them as one argument: `tensorrt`, TensorrtOptions or None.
    """

    @click.option("--trt-cache", type=click.Path(path_type=Path), help="Folder that keeps engines.")
    @click.option("--trt-fp16", is_flag=True, help="Let TensorRT compute in half precision.")
    @click.option(
        "--trt-profile", multiple=True, metavar="INPUT=MIN:OPT:MAX",
        help="Shapes such as image=1x3x224x224:8x3x224x224:32x3x224x224; repeat for several inputs.",
    )  # fmt: skip
    @wraps(command)
    def wrapped(
        *args: Any, trt_cache: Path | None, trt_fp16: bool, trt_profile: tuple[str, ...], **rest: Any
    ) -> Any:
        options = None
        if trt_cache or trt_fp16 or trt_profile:
            from lse_export.runtime import TensorrtOptions
            from lse_export.tensorrt.sidecar import parse_shapes

            shapes = dict(parse_shapes(text) for text in trt_profile) or None
            options = TensorrtOptions(cache=trt_cache, fp16=trt_fp16, profile=shapes)
        return command(*args, tensorrt=options, **rest)

    return wrapped


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]], stderr: bool = False) -> None:
    """Print texts as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console(stderr=stderr).print(table)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on stderr that work goes on, so that stdout stays readable by scripts."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
