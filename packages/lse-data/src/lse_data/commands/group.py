"""A group of commands that plugins add to."""

from __future__ import annotations

import click

from lse_core.plugins import registry

__all__ = ["PluginGroup"]


class PluginGroup(click.Group):
    """A group with commands of its own and those that plugins register as "GROUP COMMAND".

    `lse_commands` giving {"data make-objects": command} adds `make-objects` to the group `data`.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the group's own commands and the plugins'."""
        prefix = f"{self.name} "
        added = {name.removeprefix(prefix) for name in registry().names("command") if name.startswith(prefix)}
        return sorted(added | set(super().list_commands(ctx)))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, of the group itself first, or None if there is none of this name."""
        own = super().get_command(ctx, cmd_name)
        name = f"{self.name} {cmd_name}"
        if own is not None or name not in registry().names("command"):
            return own
        command: click.Command = registry().get("command", name)
        return command
