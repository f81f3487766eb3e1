"""A folder of results: whose it is, what made it, and whether a recipe may write to it."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lse_core.errors import OutputError
from lse_train import ConfigError
from lse_train.reading import differences, parse
from lse_train.recipes.plan import Plan, make_plan
from lse_train.recipes.schema import Recipe
from lse_train.state import write_json

__all__ = ["RECIPE", "TABLE", "changed", "check_links", "claim", "open_results", "origin"]

RECIPE, TABLE = "recipe.json", "table.md"

_FREE = ("table", "seeds", "jobs", "reports", "title", "about", "scales")
"""What may change from one call to the next on the same folder: it changes no run that is there."""


def origin() -> dict[str, Any]:
    """The machine and the versions of packages that results of this process come from."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = {name: metadata.version(name) for name in ("lse-dec", "torch", "timm")}
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {gpu}",
        "versions": {"Python": platform.python_version(), **versions},
    }


def changed(out: Path, recipe: Recipe) -> list[str]:
    """Dotted names of the settings in which the runs in `out` differ from those of `recipe`.

    Empty for a folder without results. What changes no run, such as a title, does not count.

    Raises:
        ConfigError: the folder's `RECIPE` is damaged.
    """
    path = out / RECIPE
    if not path.exists():
        return []
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))["recipe"]
        found = differences(earlier, recipe.plain())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: {error}; start over with --fresh") from error
    return [name for name in found if name.partition(".")[0] not in _FREE]


def claim(out: Path, recipe: Recipe, command: str, *, fresh: bool) -> dict[str, Any]:
    """Make `out` the place of this recipe's results, or find that it is.

    Args:
        out: made if absent.
        recipe: whose results the folder is to hold.
        command: what a person gives to get the same results.
        fresh: remove the runs of an earlier call, whatever settings they had.

    Returns:
        The notes beside the recipe in `RECIPE`: "command", "machine" and "versions".

    Raises:
        ConfigError: the folder holds results of other settings, which the error names, or a damaged `RECIPE`.
        OutputError: the folder cannot be written.
    """
    path = out / RECIPE
    try:
        if fresh:
            for name in ("cells", "starts"):
                shutil.rmtree(out / name, ignore_errors=True)
            path.unlink(missing_ok=True)
        if found := changed(out, recipe):
            raise ConfigError(
                f"{out} holds results of other settings: {', '.join(found)} differ; "
                "choose another --out, or --fresh to start over"
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write to {out}: {error.strerror or error}; choose another --out"
        ) from error
    notes = {"command": command, **origin()}
    write_json(path, {"recipe": recipe.plain(), **notes})
    return notes


def open_results(out: str | Path) -> tuple[Recipe, Plan, dict[str, Any]]:
    """The recipe, the plan and the notes (command, machine, versions) of a folder of results.

    Raises:
        ConfigError: the folder holds no results of a recipe.
    """
    path = Path(out) / RECIPE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        recipe: Recipe = parse(Recipe, said["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{out} holds no results of a recipe: {error}") from error
    return recipe, make_plan(recipe, Path(out)), said


def check_links(out: Path, folders: Iterable[Path]) -> None:
    """Refuse folders of runs in `out` that links lead out of it; raises OutputError."""
    for folder in folders:
        for place in (folder, *folder.parents):
            if place == out:
                break
            if place.is_symlink():
                raise OutputError(
                    f"{place} is a link, and runs would write where it leads; "
                    "remove it, or choose another --out"
                )
