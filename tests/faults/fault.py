"""What a fault is, and how one is provoked and judged."""

from __future__ import annotations

import hashlib
import json
import resource
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lse_core.cli import main
from lse_core.errors import LSEError
from lse_core.plugins import registry

SECONDS = 90
"""After which a fault counts as not answered."""

LONGEST = 600
"""Characters of an answer: more is no line that anybody reads."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, and the answer that is promised.

    Attributes:
        name: what is wrong, as a person would say it.
        does: a command line without the leading "lse", run in a copy of the workshop (see conftest.py), or
            a function of that folder.
        words: what the answer must say, each in any case.
        prepare: breaks the workshop first.
        status: exit status of the command; functions must raise an LSEError.
        changes: patterns of files that the command may write or change; all others stay as they were, and
            nothing else appears.
        env: environment variables of the command; PYTHONPATH is a folder of the workshop.
        would: what it would do to somebody whose program trusted it, for what comes from strangers.
        largest: bytes that a file can have, as on a disk that is full; None for no limit.
    """

    name: str
    does: str | Callable[[Path], Any]
    words: tuple[str, ...]
    prepare: Callable[[Path], Any] | None = None
    status: int = 1
    changes: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    would: str = ""
    largest: int | None = None


def fault(name: str, does: Any, *words: str, **more: Any) -> Fault:
    """Shorter to write in a table."""
    return Fault(name, does, words, **more)


def everything(place: Path) -> dict[str, str]:
    """Every file, link and folder below `place` with a digest of what it holds."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            try:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                found[name] = type(error).__name__
        else:
            found[name] = "folder"
    return found


def judge(given: Fault, place: Path) -> str:
    """Provoke the fault in `place` and return the answer; AssertionError where it is not as promised."""
    if given.prepare is not None:
        given.prepare(place)
    before = everything(place)
    with _disk_of(given.largest), _within(SECONDS):
        answer = _of_command(given) if isinstance(given.does, str) else _of_function(given, place)
    assert "\n" not in answer, answer
    assert given.status == 0 or len(answer) <= LONGEST, f"{len(answer)} characters: {answer[:200]}"
    assert "unexpected" not in answer.lower() or "report it" not in answer, answer
    for word in given.words:
        assert word.lower() in answer.lower(), f"{word!r} is not in: {answer}"
    after = everything(place)
    touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    strange = {name for name in touched if not any(fnmatch(name, pattern) for pattern in given.changes)}
    assert not strange, f"changed or written: {sorted(strange)}"
    return answer


def _of_command(given: Fault) -> str:
    assert isinstance(given.does, str)
    status, out, errors = _run(given)
    assert status == given.status, f"exit status {status}: {out[-300:]} {errors[-600:]}"
    lines = [line for line in errors.strip().splitlines() if not line.startswith("warning: ")]
    if given.status == 0:  # nothing fails, and a warning or the output tells
        assert not any(line.startswith(("error: ", "Traceback")) for line in lines), lines
        return " ".join(f"{errors} {out}".split())
    # what has begun may have told how far it was
    assert len(lines) == 1 or (given.changes and not any("Traceback" in line for line in lines)), lines
    assert lines[-1].startswith("error: "), lines
    return lines[-1]


def _run(given: Fault) -> tuple[int, str, str]:
    assert isinstance(given.does, str)
    with _environment(given.env):
        done = CliRunner().invoke(main, shlex.split(given.does), standalone_mode=True)
    return done.exit_code, done.stdout, done.stderr


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The environment variables, and with them another path and other plugins, while the block runs."""
    if not variables:
        yield
        return
    site = variables.get("PYTHONPATH")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        if site:
            patch.syspath_prepend(str(Path(site).absolute()))
        registry.cache_clear()
        try:
            yield
        finally:
            registry.cache_clear()
            for name in [name for name in sys.modules if name.endswith("_plugin") and site]:
                del sys.modules[name]


@contextmanager
def _disk_of(largest: int | None) -> Iterator[None]:
    if largest is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"no answer within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _of_function(given: Fault, place: Path) -> str:
    assert callable(given.does)
    try:
        result = given.does(place)
    except LSEError as error:
        return str(error)
    raise AssertionError(f"nothing was raised; it returned {str(result)[:200]}")


def edit(path: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Changes a JSON file of the workshop."""

    def run(place: Path) -> None:
        values = json.loads((place / path).read_text(encoding="utf-8"))
        changed = change(values)
        (place / path).write_text(json.dumps(values if changed is None else changed), encoding="utf-8")

    return run


def write(path: str, content: str | bytes) -> Callable[[Path], None]:
    """Writes a file of the workshop, its folder too."""

    def run(place: Path) -> None:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (place / path).write_bytes(data)

    return run


def cut(path: str, keep: float) -> Callable[[Path], None]:
    """Cuts a file of the workshop short, to a share of its bytes."""

    def run(place: Path) -> None:
        data = (place / path).read_bytes()
        (place / path).write_bytes(data[: int(keep * len(data))])

    return run


def remove(path: str) -> Callable[[Path], None]:
    """Removes a file of the workshop."""
    return lambda place: (place / path).unlink()


def both(*steps: Callable[[Path], Any]) -> Callable[[Path], None]:
    """One after the other."""

    def run(place: Path) -> None:
        for step in steps:
            step(place)

    return run
