"""What lse-soft registers; heavy imports wait until a hook is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lse_core.plugins import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    import click


@hookimpl
def lse_groups() -> Mapping[str, Any]:
    """Give the groups built in."""
    from lse_soft import groups

    kinds = (
        groups.Cyclic,
        groups.LocalScale,
        groups.Lorentz,
        groups.Rigid,
        groups.Rotation,
        groups.SO3,
        groups.Translation,
    )
    return {kind.title: kind for kind in kinds}


@hookimpl
def lse_commands() -> Mapping[str, click.Command]:
    """Give `lse soften`."""
    from lse_soft.commands.soften import soften

    return {"soften": soften}


@hookimpl
def lse_methods() -> Mapping[str, Any]:
    """Give the method that keeps weights softly equivariant."""
    from lse_soft.training import Soft

    return {"soft": Soft}


@hookimpl
def lse_loaders() -> Mapping[str, Callable[..., Any]]:
    """Read folders that `lse_soft.save` wrote."""

    def soft(path: Path, *, trust: bool = False) -> Any:
        if not (path / "soft.json").is_file():
            return None
        from lse_soft.checkpoint import load

        return load(path, trust=trust)

    return {"lse-soft": soft}
