"""What lse-seg provides through the hooks that any plugin uses."""

from __future__ import annotations

import click

from lse_core.plugins import hookimpl
from lse_seg import NotInThisReleaseError, __version__


@click.command()
def seg() -> None:
    """Segmentation with mmsegmentation (not in this release).

    \b
    Example:
      lse seg
    """
    raise NotInThisReleaseError(
        f"mmsegmentation integration is not in lse-seg {__version__}; "
        "until it is, adapt the backbone itself with lse_dec.adapt"
    )


@hookimpl
def lse_commands() -> dict[str, click.Command]:
    """Give the command `seg`."""
    return {"seg": seg}
