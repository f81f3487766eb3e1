"""Doing the runs of a recipe: one after the other in this process, or side by side in processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lse_core.errors import LSEError
from lse_core.plugins import registry
from lse_core.progress import Bar, Bars
from lse_dec.checkpoint import load
from lse_train import RunConfig, evaluate, fit
from lse_train.recipes.plan import MEASURES, RESULT, Work
from lse_train.state import write_json

__all__ = ["device_of", "measured", "run_missing", "run_one"]

Watch = Callable[[int, int, Mapping[str, float]], None]

WORKER = "lse_train.recipes.worker"
ERRORS = "errors.txt"


def run_missing(
    waves: Sequence[Sequence[Work]], jobs: int, *, trust: bool, on_done: Callable[[], None]
) -> None:
    """Do all runs that are not done yet, and show how far they are.

    Args:
        waves: runs that may go on at the same time; each wave begins when the one before it has ended.
        jobs: runs at a time; those of more than one are processes of their own.
        trust: import and call what the settings name as "module:name".
        on_done: called after every run.

    Raises:
        LSEError: see `run_one`; of a run in a process of its own, its last line.
    """
    with Bars() as bars:
        runs = bars.add("runs", sum(len(works) for works in waves))
        steps = bars.add("steps")
        for works in waves:
            missing = [work for work in works if not work.done]
            runs.advance(len(works) - len(missing))
            if jobs > 1:
                finished = _side_by_side(missing, min(jobs, len(works)), trust)
            else:
                finished = _one_by_one(missing, steps, trust)
            for work in finished:
                runs.advance()
                bars.line(f"{runs.done} of {runs.total} runs are done: {work.name}")
                on_done()


def run_one(work: Work, watch: Watch | None = None, *, trust: bool = False) -> None:
    """Train one run, or go on with it, and take the recipe's further measurements.

    Args:
        work: the run.
        watch: called after every step, see `lse_train.fit`.
        trust: import and call what the settings name as "module:name".

    Raises:
        LSEError: see `lse_train.fit`; or a measure names what the model's canonicalizers do not have.
    """
    if not (work.folder / RESULT).exists():
        fit(work.config, work.folder, resume=True, watch=watch, trust=trust)
    if work.measures and not (work.folder / MEASURES).exists():
        found = {name: _measured_with(changed, work, trust) for name, changed in work.measures.items()}
        write_json(work.folder / MEASURES, found)


def device_of(config: RunConfig) -> str:
    """Where to measure a run's model: "cuda" if the run may use a GPU and one is here, else "cpu"."""
    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"


def measured(model: nn.Module, config: RunConfig) -> dict[str, Any]:
    """Numbers of a model on every test set of a run, see `lse_train.evaluate`."""
    data, device = config.data, device_of(config)
    return {
        test: evaluate(model, data.name, data.split(test), seed=config.seed, device=device)
        for test in data.tests
    }


def _measured_with(changed: Mapping[str, Any], work: Work, trust: bool) -> dict[str, Any]:
    """Numbers of every test set with attributes of the canonicalizers changed."""
    model = load(work.folder, trust=trust)
    for canonicalizer in getattr(model, "canonicalizers", {}).values():
        for name, value in changed.items():
            if not hasattr(canonicalizer, name):
                raise LSEError(
                    f"{type(canonicalizer).__name__} has no {name!r} that a measure could set; "
                    "change the recipe's measures"
                )
            setattr(canonicalizer, name, registry().get("solver", value)() if name == "solver" else value)
    return measured(model, work.config)


def _one_by_one(works: Sequence[Work], steps: Bar, trust: bool) -> Iterator[Work]:
    """Do each in this process; yields it when it is done."""
    for work in works:
        steps.restart(work.name)
        run_one(work, lambda step, of, row: steps.update(step, of), trust=trust)
        yield work


def _side_by_side(works: Sequence[Work], jobs: int, trust: bool) -> Iterator[Work]:
    """Do each in a process of its own, `jobs` at a time; yields it when it is done.

    The first that fails ends all, and so does the end of this process.
    """
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    waiting, running = list(works), dict[subprocess.Popen[str], Work]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                work = waiting.pop(0)
                running[_started(work, trust, {**os.environ, "OMP_NUM_THREADS": threads})] = work
            time.sleep(0.1)
            for process in [p for p in running if p.poll() is not None]:
                work = running.pop(process)
                errors = work.folder / ERRORS
                if process.returncode:
                    said = errors.read_text(encoding="utf-8").strip().splitlines()
                    raise LSEError(f"{work.folder} failed: {said[-1] if said else process.returncode}")
                errors.unlink(missing_ok=True)
                yield work
    finally:
        for process in running:
            process.kill()


def _started(work: Work, trust: bool, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    work.folder.mkdir(parents=True, exist_ok=True)
    task = {**work.plain(), "trust": trust}
    errors = work.folder / ERRORS
    errors.unlink(missing_ok=True)  # in a folder of others it could be a link
    with errors.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER], stdin=subprocess.PIPE, stderr=said, env=environment, text=True
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()  # kept open: its end tells the worker that nobody waits any more
    return process
