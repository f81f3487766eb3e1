"""Running a recipe: its starts, its cells, and the table as they finish."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from lse_core.atomic import replacing
from lse_core.errors import LSEError, OutputError
from lse_train.config import ConfigError, RunConfig
from lse_train.process import sole_writer
from lse_train.reading import differences
from lse_train.recipes.plan import Plan, make_plan
from lse_train.recipes.report import MEASURES, markdown, read_results
from lse_train.recipes.reuse import take_over
from lse_train.recipes.schema import Recipe, read_recipe
from lse_train.state import write_json

__all__ = ["RECIPE", "TABLE", "open_results", "run_cell", "run_recipe"]

RECIPE, TABLE = "recipe.json", "table.md"

_FREE = ("table", "seeds", "jobs", "reports", "title", "about", "scales")
"""What may change from one call to the next on the same folder: it changes no cell that is there."""

Watch = Callable[[int, int, Mapping[str, float]], None]
_Work = tuple[Path, RunConfig, Mapping[str, Mapping[str, Any]]]


def run_recipe(path: str | Path, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run what is missing of a recipe and write its table.

    The folder holds recipe.json, starts/, cells/ with a folder and a result.json for each run, and
    table.md, written anew after every cell. Killed and called again, it goes on with the cell it was at
    and ends with the same numbers; with more seeds, only those are run that are missing.

    Args:
        path: YAML file, see `lse_train.recipes.schema`.
        options: "profile" (the recipe's first), "seeds" (the recipe's), "set" (values by dotted keys, of
            the recipe or its run), "out" (runs/TABLE-PROFILE), "fresh" (remove earlier results), "reuse"
            (folders of other results, whose runs of the same settings are copied), "json" (print the
            table as JSON), "trust" (import and call functions and classes named as "module:name").

    Returns:
        What --json prints: folder, cells done and in all, and the table's lines.

    Raises:
        LSEError: see `read_recipe`, `make_plan` and `lse_train.fit`.
        ConfigError: the folder holds results of other settings, or what is to be reused was made by other
            versions or on another machine; names them.
    """
    given = dict(options or {})
    overrides = dict(given.get("set") or {})
    if given.get("seeds"):
        overrides["seeds"] = given["seeds"]
    recipe = read_recipe(path, given.get("profile"), overrides)
    suffix = f"-{given['profile']}" if given.get("profile") else ""
    out = Path(given.get("out") or Path("runs") / f"{recipe.table}{suffix}")
    trust = bool(given.get("trust"))
    plan = make_plan(recipe, out, trust=trust)
    sources = [Path(folder) for folder in given.get("reuse") or ()]
    offered = [_offered(source) for source in sources]
    with sole_writer(out):
        _claim(out, recipe, _command(path, given), bool(given.get("fresh")))
        check_links(out, [folder for works in _waves(recipe, plan, out) for folder, _, _ in works])
        for source, theirs in zip(sources, offered, strict=True):
            taken = take_over(plan, out, source, theirs)
            print(f"{taken} runs taken over from {source}", file=sys.stderr)
        _run_all(recipe, plan, out, trust)
    results = read_results(out, plan.cells, bool(recipe.measures))
    table = (out / TABLE).read_text(encoding="utf-8")
    said = {"folder": str(out), "cells": len(results), "of": len(plan.cells), "table": table.splitlines()}
    print(json.dumps(said) if given.get("json") else f"{recipe.title}\n\n{table}\n{out / TABLE}")
    return said


def open_results(out: str | Path) -> tuple[Recipe, Plan, dict[str, Any]]:
    """The recipe, the plan and the notes (command, machine, versions) of a folder of results.

    Raises:
        ConfigError: it holds none.
    """
    from lse_train.reading import parse

    path = Path(out) / RECIPE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        recipe: Recipe = parse(Recipe, said["recipe"])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{out} holds no results of a recipe: {error}") from error
    return recipe, make_plan(recipe, Path(out)), said


def _offered(source: Path) -> Plan:
    """The plan of results to take runs from, if they were made as they would be here."""
    _, plan, said = open_results(source)
    here = {"machine": _machine(), "versions": _versions()}
    found = differences({key: said.get(key) for key in here}, here)
    if found:
        raise ConfigError(f"{source} cannot be reused: {', '.join(found)} differ from those here")
    return plan


def run_cell(
    config: RunConfig,
    folder: Path,
    measures: Mapping[str, Mapping[str, Any]],
    watch: Watch | None = None,
    *,
    trust: bool = False,
) -> None:
    """Train one run, or go on with it, and take the recipe's further measurements."""
    from lse_train import fit

    if not (folder / "result.json").exists():
        fit(config, folder, resume=True, watch=watch, trust=trust)
    if measures and not (folder / MEASURES).exists():
        write_json(folder / MEASURES, {n: _measured(config, folder, s, trust) for n, s in measures.items()})


def _measured(config: RunConfig, folder: Path, settings: Mapping[str, Any], trust: bool) -> dict[str, Any]:
    """Numbers of every test set with attributes of the canonicalizers changed."""
    from lse_core.plugins import registry
    from lse_dec.checkpoint import load
    from lse_train import evaluate

    model = load(folder, trust=trust)
    for canonicalizer in getattr(model, "canonicalizers", {}).values():
        for name, value in settings.items():
            if not hasattr(canonicalizer, name):
                raise LSEError(f"{type(canonicalizer).__name__} has no {name} that a measure could set")
            setattr(canonicalizer, name, registry().get("solver", value)() if name == "solver" else value)
    return {
        test: evaluate(
            model, config.data.name, config.data.split(test),
            seed=config.seed, device=_device(config),
        )
        for test in config.data.tests
    }  # fmt: skip


def _device(config: RunConfig) -> str:
    import torch

    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"


def _run_all(recipe: Recipe, plan: Plan, out: Path, trust: bool) -> None:
    waves = _waves(recipe, plan, out)
    measured = bool(recipe.measures)

    def table() -> None:
        text = markdown(recipe, read_results(out, plan.cells, measured), len(plan.cells))
        with replacing(out / TABLE, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")

    table()
    with _progress(sum(len(works) for works in waves)) as (begin, finish):
        for works in waves:
            missing = [work for work in works if not _done(work)]
            finish(None, len(works) - len(missing))
            finished: Iterator[str]
            if recipe.jobs > 1:
                finished = (
                    str(folder.relative_to(out)) for folder in _side_by_side(missing, recipe.jobs, trust)
                )
            else:
                finished = _one_by_one(missing, out, begin, trust)
            for name in finished:
                finish(name, 1)
                table()


def _waves(recipe: Recipe, plan: Plan, out: Path) -> list[list[_Work]]:
    """What may run at the same time: for each seed its starts, then its cells, which begin where they end."""
    waves: list[list[_Work]] = []
    for seed in range(recipe.seeds):
        starts = [(name, run) for name, run in plan.starts.items() if run.seed == seed]
        cells = {cell.name: cell.config for cell in plan.cells if cell.seed == seed}
        waves.append([(out / "starts" / name, config, {}) for name, config in starts])
        waves.append([(out / "cells" / name, config, recipe.measures) for name, config in cells.items()])
    return waves


def _done(work: _Work) -> bool:
    folder, _, measures = work
    return (folder / "result.json").exists() and (not measures or (folder / MEASURES).exists())


def _one_by_one(
    works: Sequence[_Work], out: Path, begin: Callable[[str], Watch], trust: bool
) -> Iterator[str]:
    """Run each in this process; yields its name when it is done."""
    for folder, config, measures in works:
        name = str(folder.relative_to(out))
        run_cell(config, folder, measures, begin(name), trust=trust)
        yield name


def _side_by_side(works: Sequence[_Work], jobs: int, trust: bool) -> Iterator[Path]:
    """Run each in a process of its own, `jobs` at a time; yields their folders as they are done.

    The first that fails ends all, and so does the end of this process.
    """
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    waiting, running = list(works), dict[subprocess.Popen[str], Path]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                work = waiting.pop(0)
                running[_started(work, trust, {**os.environ, "OMP_NUM_THREADS": threads})] = work[0]
            time.sleep(0.1)
            for process in [p for p in running if p.poll() is not None]:
                folder = running.pop(process)
                errors = folder / "errors.txt"
                if process.returncode:
                    said = errors.read_text(encoding="utf-8").strip().splitlines()
                    raise LSEError(f"{folder} failed: {said[-1] if said else process.returncode}")
                errors.unlink(missing_ok=True)
                yield folder
    finally:
        for process in running:
            process.kill()


def _started(work: _Work, trust: bool, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    folder, config, measures = work
    folder.mkdir(parents=True, exist_ok=True)
    task = {"config": config.plain(), "folder": str(folder), "measures": measures, "trust": trust}
    (folder / "errors.txt").unlink(missing_ok=True)  # in a folder of others it could be a link
    with (folder / "errors.txt").open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "lse_train.recipes.worker"],
            stdin=subprocess.PIPE, stderr=errors, env=environment, text=True,
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()  # kept open: its end tells the worker that nobody waits any more
    return process


def _claim(out: Path, recipe: Recipe, command: str, fresh: bool) -> None:
    """Make `out` the place of this recipe's results, or find that it is."""
    path = out / RECIPE
    plain = recipe.plain()
    try:
        if fresh:
            for name in ("cells", "starts"):
                shutil.rmtree(out / name, ignore_errors=True)
            path.unlink(missing_ok=True)
        if path.exists():
            earlier = json.loads(path.read_text(encoding="utf-8"))["recipe"]
            found = [k for k in differences(earlier, plain) if k.partition(".")[0] not in _FREE]
            if found:
                raise ConfigError(
                    f"{out} holds results of other settings: {', '.join(found)} differ; "
                    "choose another --out, or --fresh to start over"
                )
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is damaged: {error}; start over with --fresh") from error
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror or error}") from error
    notes = {"command": command, "machine": _machine(), "versions": _versions()}
    write_json(path, {"recipe": plain, **notes})


def check_links(out: Path, folders: Sequence[Path]) -> None:
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


def _command(path: str | Path, given: Mapping[str, Any]) -> str:
    parts = [f"lse train {_shown(path)}"]
    parts += [f"--{name} {given[name]}" for name in ("profile", "seeds") if given.get(name)]
    parts += [f"--set {key}={json.dumps(value)}" for key, value in (given.get("set") or {}).items()]
    parts += [f"--reuse {_shown(folder)}" for folder in given.get("reuse") or ()]
    return " ".join(parts)


def _shown(path: str | Path) -> Path:
    """`path` for pages, which are for other machines too: no folder of this one."""
    shown = Path(path)
    if shown.is_absolute():
        shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else Path(shown.name)
    return shown


def _machine() -> str:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} cores, {platform.machine()}, {gpu}"


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in ("lse-dec", "torch", "timm"):
        found[name] = metadata.version(name)
    return found


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[str], Watch], Callable[[str | None, int], None]]]:
    """A bar over runs and one over the steps of the one at hand; a line a run where no bar can be redrawn."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        runs, steps = bar.add_task("runs", total=total), bar.add_task("")

        def begin(name: str) -> Watch:
            bar.reset(steps, description=name)
            return lambda step, of, row: bar.update(steps, completed=step, total=of)

        def finish(name: str | None, count: int) -> None:
            bar.advance(runs, count)
            if name is not None and not console.is_terminal:
                console.print(f"{bar.tasks[0].completed:.0f} of {total}: {name}", soft_wrap=True)

        yield begin, finish
