"""What lse-export registers; heavy imports wait until a hook is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lse_core.plugins import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def lse_commands() -> Mapping[str, click.Command]:
    """The command group `export`, and the commands that run what it made."""
    from lse_export.commands import export
    from lse_export.commands.running import bench, predict

    return {"bench": bench, "export": export, "predict": predict}


@hookimpl
def lse_checks() -> Mapping[str, Callable[[], str]]:
    """What exported files can run on here."""

    def runtimes() -> str:
        from lse_export.runtime import runtimes_here

        return runtimes_here()

    def rtx() -> str:
        from lse_export.tensorrt.rtx import rtx_here

        return rtx_here()

    return {"runtimes": runtimes, "tensorrt-rtx": rtx}
