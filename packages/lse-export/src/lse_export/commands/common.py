"""What the commands share: their options, and showing that work goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on stderr that work goes on, so that stdout stays readable by scripts."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
