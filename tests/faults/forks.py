"""Commands as forks of one process that has imported what they need, for imports take longer than they do."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from faults.interrupts import Long

SPAWN = multiprocessing.get_context("forkserver")


def run(program: tuple[str, ...], words: list[str], folder: str, output: str) -> None:
    """In the fork: what the command would do in a process of its own."""
    file = os.open(output, os.O_WRONLY)
    os.dup2(file, 1), os.dup2(file, 2)
    os.chdir(folder)
    os.environ |= {"OMP_NUM_THREADS": "1", "LSE_CACHE": str(Path(folder) / ".cache")}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = ["lse", *words]
    if len(program) == 2:  # a script of these tests
        from faults.segment import main
    else:
        from lse_core.cli import main
    try:
        main()
    except (
        KeyboardInterrupt
    ):  # what Python does with it at the end of a program, and multiprocessing does not
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


class Fork:
    """A command in a fork, with what `disturb` asks of a Popen."""

    def __init__(self, long: Long, folder: Path, *more: str) -> None:
        number, output = tempfile.mkstemp(dir=folder.parent, suffix=".txt")
        os.close(number)
        self.output = Path(output)
        words = [] if long.by_signal else [*shlex.split(long.command), *more]
        self.process = SPAWN.Process(target=run, args=(long.program, words, str(folder), str(self.output)))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.process.exitcode is None:
            assert self.process.pid is not None
            os.kill(self.process.pid, number)

    def communicate(self) -> tuple[str, None]:
        self.process.join()
        return self.output.read_text(encoding="utf-8"), None
