"""Progress of a build, phase by phase, as TensorRT's builder reports it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

__all__ = ["BuildProgress", "interrupts"]


@contextmanager
def interrupts(note: Callable[[], None]) -> Iterator[None]:
    """Around a call of TensorRT: Ctrl-C calls `note`, and no KeyboardInterrupt is raised meanwhile.

    It could come up in our logger, which C++ calls and through which no exception may pass. Python lets only
    its main thread see signals, so in another one nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGINT, lambda number, frame: note())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


class BuildProgress:
    """Bars on stderr where that is a terminal, one for each phase that is under way; a context manager.

    The builder calls it from its own code, through which no exception may pass: an interrupt is kept in
    `stopped`, and the builder is asked to end, which it does at its next step.

    Attributes:
        stopped: whether the user interrupted.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.stopped = False
        console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._depths: dict[str, int] = {}

    def __enter__(self) -> BuildProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    @property
    def phases(self) -> list[str]:
        """Phases under way, the outermost first."""
        return list(self._tasks)

    def stop(self) -> None:
        """Ask the builder to end."""
        self.stopped = True

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins within `parent`."""
        self._bars.start()  # only now: a build that is refused shows no bars
        depth = self._depths[phase] = self._depths.get(parent or "", -1) + 1
        self._tasks[phase] = self._bars.add_task(f"{'  ' * depth}{phase}", total=steps)

    def step(self, phase: str, step: int) -> bool:
        """Step number `step`, from 0, is done; returns whether to go on."""
        if phase in self._tasks:
            self._bars.update(self._tasks[phase], completed=step + 1)
        return not self.stopped

    def finish(self, phase: str) -> None:
        """A phase ends, whether or not all its steps were done."""
        task = self._tasks.pop(phase, None)
        self._depths.pop(phase, None)
        if task is not None:
            self._bars.remove_task(task)
