"""What lse-core itself provides as a plugin: two families of warps and four commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.plugins import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def lse_warps() -> dict[str, type]:
    """Give the warps of the exact group, and the paper's coupled grids."""
    from lse_core.grid import GridWarp
    from lse_core.separable import SeparableWarp

    return {"grid": GridWarp, "separable": SeparableWarp}


@hookimpl
def lse_commands() -> dict[str, click.Command]:
    """Give the commands that look at the installation and at warps, and the one that measures models."""
    from lse_core.commands.doctor import doctor
    from lse_core.commands.measure import measure
    from lse_core.commands.plugins import plugins
    from lse_core.commands.warp import warp

    return {"doctor": doctor, "measure": measure, "plugins": plugins, "warp": warp}
