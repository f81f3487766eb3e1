"""A group of commands that plugins add to."""

import click
from click.testing import CliRunner

from lse_core import hookimpl, registry
from lse_core.cli import main
from lse_data.commands.group import PluginGroup


@click.group(cls=PluginGroup)
def garden() -> None:
    """Look after plants."""


@garden.command()
def water() -> None:
    """Give water."""
    click.echo("wet")


@click.command()
def prune() -> None:
    """Cut back."""
    click.echo("cut")


class Gardener:
    """Owns the group."""

    @hookimpl
    def lse_commands(self) -> dict[str, click.Command]:
        return {"garden": garden}


class Tools:
    """Adds to it, and tries to replace what is there."""

    @hookimpl
    def lse_commands(self) -> dict[str, click.Command]:
        return {"garden prune": prune, "garden water": prune}


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    return f"{result.exit_code} {result.output.strip()}"


def test_plugins_add_to_a_group() -> None:
    registry().register(Gardener(), "gardener")
    try:
        assert run("garden", "prune").startswith("2 ")
        registry().register(Tools(), "tools")
        try:
            assert run("garden", "prune") == "0 cut"
            assert run("garden", "water") == "0 wet"  # the group's own come first
            assert "prune  Cut back." in run("garden", "--help")
            assert "garden prune" not in run("--help")
        finally:
            registry().unregister("tools")
        assert run("garden", "prune").startswith("2 ")
    finally:
        registry().unregister("gardener")
