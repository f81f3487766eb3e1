"""What several commands share: a device that is checked first, and an end that says how to go on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from lse_core.errors import LSEError

__all__ = ["check_device", "interruptible"]


def check_device(device: str) -> None:
    """Refuse, with an LSEError, a device that torch cannot use here."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LSEError(f"device {device!r} cannot be used here; try --device cpu") from error


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
