"""What commands of several packages share: groups that plugins add to, and NAME=VALUE settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from lse_core.plugins import registry

__all__ = ["PluginGroup", "read_settings"]


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
        """Return a command; the group's own come first, None where there is no such name."""
        own = super().get_command(ctx, cmd_name)
        name = f"{self.name} {cmd_name}"
        if own is not None or name not in registry().names("command"):
            return own
        command: click.Command = registry().get("command", name)
        return command


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
