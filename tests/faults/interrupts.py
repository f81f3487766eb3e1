"""Interrupts long commands at random moments, and says whether anything was lost.

`make soak` runs it: every command ten times for each of SIGINT and SIGTERM. After each interrupt the same
command is given again; it must end as if it had never been interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
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

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.workshop import build

SIGNALS = {"SIGINT": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}
LSE = [sys.executable, "-c", "from lse_core.cli import main; main()"]


@dataclass(frozen=True)
class Long:
    """A command that takes long enough to be interrupted.

    Attributes:
        command: words after "lse".
        results: what it writes, relative to the folder; equal bytes each time it is run to its end.
        whole: says of a result that exists whether it is whole; None where it must not exist before the end.
    """

    command: str
    results: tuple[str, ...]
    whole: Callable[[Path], bool] | None = None


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


def start(command: str, folder: Path) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    args = [*LSE, *shlex.split(command)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "LSE_CACHE": str(folder / ".cache")}
    return subprocess.Popen(
        args,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextmanager
def copy_of(workshop: Path) -> Iterator[Path]:
    """A copy of the workshop that is gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "workshop"
        shutil.copytree(workshop, folder, symlinks=True)
        yield folder


def undisturbed(long: Long, workshop: Path) -> tuple[float, dict[str, str]]:
    """How many seconds the command takes, and what it writes, when nobody interrupts it."""
    with copy_of(workshop) as folder:
        begun = time.monotonic()
        process = start(long.command, folder)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        return time.monotonic() - begun, digest(folder, long.results)


def disturb(long: Long, workshop: Path, name: str, after: float, expected: dict[str, str]) -> str:
    """Interrupt the command `after` seconds, then give it again; "interrupted" or "ended first".

    Raises:
        AssertionError: another exit status, a traceback, a half file that looks whole, or another end.
    """
    number, status = SIGNALS[name]
    with copy_of(workshop) as folder:
        before = {p.name for p in folder.iterdir()}
        process = start(long.command, folder)
        time.sleep(after)
        process.send_signal(number)
        said, _ = process.communicate(timeout=120)
        # before Python has taken the signal over, the system ends the process
        assert process.returncode in (status, 0, -number), f"exit status {process.returncode}: {said[-800:]}"
        outcome = "ended first" if process.returncode == 0 else "interrupted"
        assert process.returncode == -number or "Traceback" not in said, said[-1500:]
        for result in long.results:
            if process.returncode and (folder / result).is_file() and long.whole is not None:
                assert long.whole(folder / result), f"{result} is there and not whole"
        if process.returncode == status:
            left = {p.name for p in folder.iterdir()} - before
            hidden = {n for n in left if n.startswith(".") and n != ".cache"}
            assert not hidden, f"left behind: {sorted(hidden)}"
        again = start(long.command, folder)
        said, _ = again.communicate()
        if again.returncode and "--force" in said:  # a folder of data that is not empty asks first
            again = start(f"{long.command} --force", folder)
            said, _ = again.communicate()
        assert again.returncode == 0, f"the second time: {said[-800:]}"
        assert digest(folder, long.results) == expected, "another result than without the interrupt"
    return outcome


def main() -> None:
    """Interrupt every command, `--rounds` times for each signal, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(COMMANDS))
    given = parser.parse_args()
    draw = random.Random(given.seed)
    failed = 0
    workshop = Path(tempfile.mkdtemp()) / "workshop"
    build(workshop)
    for command in given.only:
        seconds, expected = undisturbed(COMMANDS[command], workshop)
        for name in SIGNALS:
            outcomes = {"interrupted": 0, "ended first": 0, "failed": 0}
            for _ in range(given.rounds):
                after = draw.uniform(0.0, 1.1 * seconds)
                try:
                    outcomes[disturb(COMMANDS[command], workshop, name, after, expected)] += 1
                except AssertionError as error:
                    outcomes["failed"] += 1
                    print(f"{command}, {name} after {after:.2f} s: {str(error)[:300]}", flush=True)
            failed += outcomes["failed"]
            told = ", ".join(f"{count} {what}" for what, count in outcomes.items())
            print(f"{command:8} {name:8} {given.rounds} times within {seconds:.1f} s: {told}", flush=True)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
