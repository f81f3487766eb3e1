"""Taking over runs of other results that have the same settings, so that no table trains them again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lse_core.atomic import staging
from lse_dec.checkpoint.saving import retell
from lse_train.config import ConfigError, RunConfig
from lse_train.recipes.plan import Plan
from lse_train.running import told
from lse_train.state import CONFIG, FREE, MODEL, RESULT, check_result, write_json

__all__ = ["take_over"]


def take_over(plan: Plan, out: Path, source: Path, theirs: Plan) -> int:
    """Copy finished runs from one folder of results into another.

    Runs are the same if all that their numbers depend on is: settings, seed, and the start, which is
    compared in the same way. Test sets may have other names, and the source may have more of them.

    Args:
        plan: of the results that want runs.
        out: their folder; what is finished there stays.
        source: folder with runs.
        theirs: its plan.

    Returns:
        How many were taken over.

    Raises:
        ConfigError: a result of the source is damaged.
        OutputError: a copy cannot be written.
    """
    offered = _keyed(theirs, source)
    taken = 0
    for key, (folder, config) in _keyed(plan, out).items():
        if (folder / RESULT).exists() or key not in offered:
            continue
        other, known = offered[key]
        result = _result(other / RESULT)
        names = _same_tests(config, known)
        if result is None or names is None:
            continue
        metrics = {name: result["metrics"][there] for name, there in names.items()}
        with staging(folder) as fresh:
            shutil.copytree(other, fresh / "run", ignore=shutil.ignore_patterns("measures.json"))
            write_json(fresh / "run" / CONFIG, config.plain())
            retell(fresh / "run" / MODEL, told(config))
            write_json(fresh / "run" / RESULT, {**result, "metrics": metrics, "folder": MODEL})
            shutil.rmtree(folder, ignore_errors=True)  # an unfinished run of the same settings
            os.replace(fresh / "run", folder)
        taken += 1
    return taken


def _keyed(plan: Plan, out: Path) -> dict[str, tuple[Path, RunConfig]]:
    """Folder and settings of every run, by what its numbers depend on."""
    starts = {str(out / "starts" / name): _key(config) for name, config in plan.starts.items()}
    keyed = {_key(config): (out / "starts" / name, config) for name, config in plan.starts.items()}
    for cell in plan.cells:
        keyed[_key(cell.config, starts)] = (out / "cells" / cell.name, cell.config)
    return keyed


def _key(config: RunConfig, starts: Mapping[str, str] | None = None) -> str:
    plain = {name: value for name, value in config.plain().items() if name not in FREE}
    plain["data"] = {name: value for name, value in plain["data"].items() if name != "tests"}
    if starts is not None:
        initial = plain["model"]["initial"]
        plain["model"] = {**plain["model"], "initial": starts.get(initial, initial)}
    return json.dumps(plain, sort_keys=True)


def _same_tests(wanted: RunConfig, known: RunConfig) -> dict[str, str] | None:
    """For each test set of the one its name in the other; None if one is missing."""
    names = {json.dumps(v, sort_keys=True): name for name, v in known.data.tests.items()}
    found = {name: names.get(json.dumps(v, sort_keys=True)) for name, v in wanted.data.tests.items()}
    return None if None in found.values() else {name: str(there) for name, there in found.items()}


def _result(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check_result(said)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    return said
