"""Options that several commands for data sets share; their defaults are those of the settings they set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lse_core.errors import DataError

__all__ = ["NUMBERS", "as_json", "force", "out", "seed", "source", "split", "together"]

Option = Callable[[Any], Any]

out = click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
seed = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of everything that is drawn."
)
split = click.option("--split", default="train", show_default=True, metavar="train|val|test",
                     help="Which handwritten digits to use; none is in two splits.")  # fmt: skip
source = click.option("--source", default="sklearn", show_default=True,
                      help="Handwritten digits: 'sklearn', or the folder that holds MNIST/raw.")  # fmt: skip
force = click.option("--force", is_flag=True, help="Replace the data set of a folder that is not empty.")
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print a description of what was written as JSON."
)


def together(*options: Option) -> Option:
    """One decorator for several options, listed in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class _Numbers(click.ParamType):
    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return tuple(float(text) for text in value.split(",")) if isinstance(value, str) else value
        except ValueError as error:
            raise DataError(
                f"{param.opts[0] if param else 'it'} takes numbers with commas between them, not {value!r}"
            ) from error


NUMBERS = _Numbers()
"""Numbers with commas between them, given as a tuple."""
