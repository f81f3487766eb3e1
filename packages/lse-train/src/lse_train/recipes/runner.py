"""From a recipe's file to its table: what is missing is run, and the page is written as runs finish."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lse_core.atomic import replacing
from lse_train import ConfigError
from lse_train.process import sole_writer
from lse_train.reading import differences
from lse_train.recipes.execution import run_missing
from lse_train.recipes.plan import Plan, make_plan
from lse_train.recipes.report import markdown, page, read_results
from lse_train.recipes.results import TABLE, check_links, claim, open_results, origin
from lse_train.recipes.reuse import take_over
from lse_train.recipes.schema import Recipe, read_recipe

__all__ = ["complete", "run_recipe"]


def run_recipe(path: str | Path, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run what is missing of a recipe, write its table and print it.

    The folder holds recipe.json, starts/, cells/ with a folder and a result.json for each run, and
    table.md, written anew after every run. Killed and called again, it goes on with the run it was at
    and ends with the same numbers; with more seeds, only those are run that are missing.

    Args:
        path: YAML file, see `lse_train.recipes.schema`.
        options: "profile" (one of the recipe's sets of settings, such as "cpu"; its first if none is given;
            earlier versions called it "scale", which is read too), "seeds" (how many; the recipe's), "set"
            (values by dotted keys, of the recipe or its run), "out" (runs/TABLE-PROFILE), "fresh" (remove
            earlier results), "reuse" (folders of other results, whose runs of the same settings are
            copied), "json" (print the table as JSON), "trust" (import and call functions and classes named
            as "module:name").

    Returns:
        What --json prints: folder, runs that are done ("cells") and runs in all ("of"), the table's lines.

    Raises:
        LSEError: see `read_recipe`, `make_plan` and `lse_train.fit`.
        ConfigError: the folder holds results of other settings, or what is to be reused was made by other
            versions or on another machine; names them.
    """
    given = dict(options or {})
    overrides = dict(given.get("set") or {})
    if given.get("seeds"):
        overrides["seeds"] = given["seeds"]
    profile = given.get("profile") or given.get("scale")
    recipe = read_recipe(path, profile, overrides)
    out = Path(given.get("out") or Path("runs") / "-".join([recipe.table, *([profile] if profile else [])]))
    plan = complete(
        recipe,
        out,
        command=_command(path, profile, given),
        fresh=bool(given.get("fresh")),
        reuse=[Path(folder) for folder in given.get("reuse") or ()],
        trust=bool(given.get("trust")),
    )
    results = read_results(out, plan.cells, bool(recipe.measures))
    table = markdown(recipe, results, len(plan.cells))
    said = {"folder": str(out), "cells": len(results), "of": len(plan.cells), "table": table.splitlines()}
    print(json.dumps(said) if given.get("json") else f"{recipe.title}\n\n{table}\n{out / TABLE}")
    return said


def complete(
    recipe: Recipe,
    out: Path,
    *,
    command: str,
    fresh: bool = False,
    reuse: Sequence[Path] = (),
    trust: bool = False,
    held: bool = False,
) -> Plan:
    """Run what is missing of `recipe` in the folder `out`, and keep its page up to date.

    Args:
        recipe: what to run.
        out: folder of the results, made if absent.
        command: what a person gives to get the same results, for the page.
        fresh: remove earlier results first.
        reuse: folders of other results, whose runs of the same settings are copied.
        trust: import and call functions and classes that the recipe names as "module:name".
        held: the caller is the `sole_writer` of `out` already.

    Returns:
        The plan, of which every run is done.

    Raises:
        LSEError: see `run_recipe`.
    """
    plan = make_plan(recipe, out, trust=trust)
    offered = [_offered(source) for source in reuse]
    waves = plan.waves(out, recipe.measures)
    with nullcontext() if held else sole_writer(out):
        notes = claim(out, recipe, command, fresh=fresh)
        check_links(out, [work.folder for works in waves for work in works])
        for source, theirs in zip(reuse, offered, strict=True):
            taken = take_over(plan, out, source, theirs)
            print(f"{taken} runs were copied from {source}.", file=sys.stderr)

        def write_page() -> None:
            results = read_results(out, plan.cells, bool(recipe.measures))
            with replacing(out / TABLE, overwrite=True) as partial:
                partial.write_text(page(recipe, results, len(plan.cells), notes), encoding="utf-8")

        write_page()
        run_missing(waves, recipe.jobs, trust=trust, on_done=write_page)
    return plan


def _offered(source: Path) -> Plan:
    """The plan of results to take runs from, if they were made as they would be here."""
    _, plan, said = open_results(source)
    here = origin()
    found = differences({key: said.get(key) for key in here}, here)
    if found:
        raise ConfigError(f"{source} cannot be reused: {', '.join(found)} differ from those here")
    return plan


def _command(path: str | Path, profile: str | None, given: Mapping[str, Any]) -> str:
    parts = [f"lse train {_shown(path)}", *([f"--profile {profile}"] if profile else [])]
    parts += [f"--seeds {given['seeds']}"] if given.get("seeds") else []
    parts += [f"--set {key}={json.dumps(value)}" for key, value in (given.get("set") or {}).items()]
    parts += [f"--reuse {_shown(folder)}" for folder in given.get("reuse") or ()]
    return " ".join(parts)


def _shown(path: str | Path) -> Path:
    """`path` for pages, which are for other machines too: no folder of this one."""
    shown = Path(path)
    if shown.is_absolute():
        shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else Path(shown.name)
    return shown
