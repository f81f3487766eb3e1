"""What lse-core itself provides as a plugin: three families of warps and three commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.plugins import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def lse_warps() -> dict[str, type]:
    """Give the warps of the exact groups, and the paper's coupled grids."""
    from lse_core.grid import GridWarp
    from lse_core.separable import SeparableWarp
    from lse_core.triangular import TriangularWarp

    return {"grid": GridWarp, "separable": SeparableWarp, "triangular": TriangularWarp}


@hookimpl
def lse_commands() -> dict[str, click.Command]:
    """Give the commands that look at the installation and at warps."""
    from lse_core.commands.doctor import doctor
    from lse_core.commands.plugins import plugins
    from lse_core.commands.warp import warp

    return {"doctor": doctor, "plugins": plugins, "warp": warp}
