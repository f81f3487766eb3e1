"""Interrupts a long command, gives it again, and says whether anything was lost."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGNALS = {"SIGINT": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}
LSE = (sys.executable, "-c", "from lse_core.cli import main; main()")
SEGMENT = Path(__file__).with_name("segment.py")


@dataclass(frozen=True)
class Long:
    """A command that takes long enough to be interrupted.

    Attributes:
        command: words after "lse", or after another program.
        results: what it writes, relative to the folder; equal bytes each time it is run to its end.
        whole: says of a result that exists whether it is whole; None where it must not exist before the end.
        program: what the command is given to.
        by_signal: the process ends by the signal itself, as Python programs do that have no words for it; a
            shell calls that 130 or 143 too.
    """

    command: str
    results: tuple[str, ...]
    whole: Callable[[Path], bool] | None = None
    program: tuple[str, ...] = LSE
    by_signal: bool = False

    @property
    def title(self) -> str:
        """The command as a person gives it."""
        return f"lse {self.command}" if self.program == LSE else self.command


def is_json(path: Path) -> bool:
    """Whether a file holds JSON."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def is_onnx(path: Path) -> bool:
    """Whether a file holds a valid graph."""
    import onnx

    try:
        onnx.checker.check_model(onnx.load(path))
    except Exception:  # whatever a damaged file makes of the parser
        return False
    return True


COMMANDS: dict[str, Long] = {
    "demo": Long("demo --quick --out demo", ("demo/results.json",), is_json),
    "train": Long("train run.yaml --out out --set steps=12", ("out/result.json", "out/metrics.csv"), None),
    "recipe": Long("train recipe.yaml --out out", ("out/table.md",), None),
    "export": Long("export onnx model --out new.onnx --force", ("new.onnx",), is_onnx),
    "int8": Long(
        "export onnx model --out new.onnx --force --precision int8 --calibration photos/cup",
        ("new.onnx",),
        is_onnx,
    ),
    "measure": Long("measure model photos --warps 30 --out measured", ("measured/results.json",), is_json),
    "digits": Long("data digits --out new --count 3000 --resolution 64", ("new/digits.safetensors",), None),
    "scenes": Long("data scenes --out new --count 60", ("new",), None),
    "objects": Long("data make-objects --out new --train 60 --test 10 --size 64", ("new",), None),
    "mmseg": Long(
        "python tests/faults/segment.py",
        ("seg/weights.safetensors",),
        program=(sys.executable, str(SEGMENT)),
        by_signal=True,
    ),
}  # fmt: skip


def digest(folder: Path, results: tuple[str, ...]) -> dict[str, str]:
    """What the results hold, but for times."""
    found = {}
    for name in results:
        path = folder / name
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            data = file.read_bytes()
            if file.name in ("results.json", "result.json"):
                values = json.loads(data)
                for key in ("seconds", "versions", "onnx", "command"):
                    values.pop(key, None)
                data = json.dumps(values, sort_keys=True).encode()
            if file.suffix == ".safetensors":  # the order of its header's entries is left to chance
                head = 8 + int.from_bytes(data[:8], "little")
                data = json.dumps(json.loads(data[8:head]), sort_keys=True).encode() + data[head:]
            found[file.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def start(long: Long, folder: Path, *more: str) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    args = [*long.program, *([] if long.by_signal else shlex.split(long.command)), *more]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "LSE_CACHE": str(folder / ".cache")}
    return subprocess.Popen(
        args,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a job in the background ignores interrupts, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@contextmanager
def copy_of(workshop: Path) -> Iterator[Path]:
    """A copy of the workshop that is gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "workshop"
        shutil.copytree(workshop, folder, symlinks=True)
        yield folder


Starter = Callable[..., Any]
"""`start`, or what starts a command in another way: an object with what `disturb` asks of a Popen."""


def undisturbed(long: Long, workshop: Path, start: Starter = start) -> tuple[float, dict[str, str]]:
    """How many seconds the command takes, and what it writes, when nobody interrupts it."""
    with copy_of(workshop) as folder:
        begun = time.monotonic()
        process = start(long, folder)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        return time.monotonic() - begun, digest(folder, long.results)


def disturb(
    long: Long,
    workshop: Path,
    name: str,
    wait: Callable[[Any, Path], Any],
    expected: dict[str, str],
    start: Starter = start,
    again: Starter | None = None,
) -> str:
    """Interrupt the command, then give it again; "interrupted" or "ended first".

    Args:
        long: the command.
        workshop: copied for it.
        name: of the signal.
        wait: returns when it is time to interrupt; it is given the process and the folder.
        expected: what the command writes when nobody interrupts it.
        start: starts the command.
        again: starts it after the interrupt; `start` if it is left out.

    Raises:
        AssertionError: another exit status, a traceback, a half file that looks whole, or another end.
    """
    number, status = SIGNALS[name]
    with copy_of(workshop) as folder:
        before = {p.name for p in folder.iterdir()}
        process = start(long, folder)
        wait(process, folder)
        process.send_signal(number)
        said, _ = process.communicate()
        # before Python has taken the signal over, the system ends the process
        assert process.returncode in (status, 0, -number), f"exit status {process.returncode}: {said[-700:]}"
        outcome = "ended first" if process.returncode == 0 else "interrupted"
        assert long.by_signal or process.returncode == -number or "Traceback" not in said, (
            f"a traceback: {said[-700:]}"
        )
        for result in long.results:
            if process.returncode and (folder / result).is_file() and long.whole is not None:
                assert long.whole(folder / result), f"{result} is there and not whole"
        if process.returncode == status:
            left = {p.name for p in folder.iterdir()} - before
            hidden = {n for n in left if n.startswith(".") and n != ".cache"}
            assert not hidden, f"left behind: {sorted(hidden)}"
        resume = again or start
        resumed = resume(long, folder)
        said, _ = resumed.communicate()
        if resumed.returncode and "--force" in said:  # a folder of data that is not empty asks first
            resumed = resume(long, folder, "--force")
            said, _ = resumed.communicate()
        assert resumed.returncode == 0, f"the second time, exit status {resumed.returncode}: {said[-700:]}"
        assert digest(folder, long.results) == expected, "another result than without the interrupt"
    return outcome


def once_begun(seconds: float, most: float) -> Callable[[Any, Path], None]:
    """Waits until the command has written something, and then so long; at `most` so long until it has.

    Before that a command imports, which takes longer than many commands themselves.
    """

    def wait(process: Any, folder: Path) -> None:
        before, end = set(folder.rglob("*")), time.monotonic() + most
        while process.poll() is None and time.monotonic() < end and set(folder.rglob("*")) == before:
            time.sleep(0.01)
        time.sleep(0.0 if time.monotonic() >= end else seconds)

    return wait
