"""`lse plugins`: the installed plugins, what they provide and what is wrong with them."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from lse_core.plugins import PluginInfo, registry

NARROW = 60
"""Columns of a terminal below which there is no room for a table."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def plugins(as_json: bool) -> None:
    """List the installed plugins and what they provide.

    A broken plugin is shown with the reason. The variable LSE_PLUGINS allows or blocks plugins by name:
    LSE_PLUGINS=dec,export loads only these two beside lse-core, and LSE_PLUGINS=-export loads all but that
    one. With LSE_PLUGINS_STRICT=1 a broken plugin is an error instead of a warning.

    \b
    Example:
      lse plugins
      lse plugins --json
    """
    found, conflicts = registry().plugins(), registry().conflicts()
    if as_json:
        report = {"plugins": [asdict(info) for info in found], "conflicts": list(conflicts)}
        click.echo(json.dumps(report, indent=2))
        return
    _print_table(found)
    for conflict in conflicts:
        click.echo(f"conflict: {conflict}")


def _print_table(found: tuple[PluginInfo, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if console.width < NARROW:  # a table of one letter a column tells nobody anything
        for info in found:
            click.echo(
                f"{info.name} ({info.distribution} {info.version}): {info.status} {info.error}".rstrip()
            )
            for kind, names in info.provides.items():
                click.echo(f"  {kind}: {', '.join(names)}")
        return
    table = Table("plugin", "distribution", "version", "status", "provides", show_lines=True)
    styles = {"ok": "green", "failed": "bold red", "blocked": "yellow"}
    for info in found:
        lines = [f"{kind}: {', '.join(names)}" for kind, names in info.provides.items()]
        if info.error:
            lines.append(f"error: {info.error}")
        # Text, because rich would read the brackets of an error message as markup
        table.add_row(
            Text(info.name),
            Text(info.distribution),
            Text(info.version),
            Text(info.status, style=styles[info.status]),
            Text("\n".join(lines)),
        )
    console.print(table)
