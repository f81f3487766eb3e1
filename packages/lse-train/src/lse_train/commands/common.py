"""What several commands share: an end that says how to go on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ["interruptible"]


@contextmanager
def interruptible() -> Iterator[None]:
    """A run that was interrupted ends the program with the signal's exit status and says how to go on."""
    from lse_train.process import RunInterruptedError

    try:
        yield
    except RunInterruptedError as error:
        if not int(os.environ.get("RANK", "0")):
            click.echo(str(error), err=True)
        sys.exit(error.status)
