"""What commands of several packages share: NAME=VALUE settings, tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lse_core.errors import LSEError

__all__ = ["check_device", "print_table", "read_class_names", "read_settings", "working"]


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings from NAME=VALUE texts, as options such as `--set` take them.

    A value is read as JSON (a list as a tuple) where it is JSON, and is text otherwise.

    Raises:
        UsageError: a text without a name or without "=".
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"settings are given as NAME=VALUE, such as ratio=2; got {pair!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


def check_device(device: str) -> None:
    """Raise an LSEError unless torch can use `device`, such as "cpu" or "cuda", here."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LSEError(f"device {device!r} cannot be used here; try --device cpu") from error


def read_class_names(path: Path) -> list[str]:
    """The names of classes in a text file, one on each line.

    Raises:
        LSEError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise LSEError(f"cannot read the class names in {path}: {reason}") from error
    return [line.strip() for line in lines if line.strip()]


def print_table(
    columns: Iterable[str], rows: Iterable[Iterable[str]], *, title: str | None = None, stderr: bool = False
) -> None:
    """Print texts as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console(stderr=stderr).print(table)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on stderr that work goes on whose length nobody knows, while the block runs."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
