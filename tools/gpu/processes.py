"""A part as a process: forked from a server that has imported torch, stopped whole when its time is over."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from page import Outcome
from parts import Part

__all__ = ["run"]


def run(part: Part, work: Path, left: float) -> Outcome:
    """Run a part within its limit and the seconds `left`; whatever happens in it is in what is returned."""
    if part.needs and not any(find_spec(module) for module in part.needs):
        return Outcome(part, f"left out: {' and '.join(part.needs)} cannot be imported")
    limit, began = min(part.limit, left), time.monotonic()
    process = multiprocessing.get_context("forkserver").Process(target=_inside, args=(part, work))
    process.start()
    process.join(limit)
    state = "done"
    if process.is_alive():
        state = f"stopped after {limit:.0f} s"
    elif process.exitcode:
        state = "failed"
    _end(process)
    # pages are for other machines too
    shown, log = (_text(work / f"{part.name}.{kind}").replace(f"{work}/", "") for kind in ("md", "log"))
    if state == "failed":
        said = [line for line in log.splitlines() if line.strip()]
        state = f"failed: {said[-1].strip()[:200] if said else f'exit status {process.exitcode}'}"
    return Outcome(part, state, time.monotonic() - began, shown, log, _numbers(work / part.name))


def _inside(part: Part, work: Path) -> None:
    """The script with its output in files; in a session of its own, so that all of it can be ended."""
    os.setsid()
    for number, kind in ((1, "md"), (2, "log")):
        with (work / f"{part.name}.{kind}").open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(number), "w", buffering=1, encoding="utf-8") for number in (1, 2)
    )
    os.environ.update(part.environment)
    (work / part.name).mkdir()
    sys.argv = [str(part.script), *part.arguments]
    sys.path.insert(0, str(part.script.parent))
    runpy.run_path(str(part.script), run_name="__main__")


def _end(process: multiprocessing.process.BaseProcess) -> None:
    """End what is left of it, compilers that it started too."""
    if process.pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _numbers(folder: Path) -> dict[str, object]:
    """What the part wrote as JSON, by the names of the files; one cut off in the middle is left out."""
    found: dict[str, object] = {}
    for path in sorted(folder.glob("*.json")):
        with suppress(ValueError):
            found[path.stem] = json.loads(_text(path))
    return found
