"""Progress of a build, phase by phase, as TensorRT's builder reports it, and interrupts during its calls."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lse_core.progress import Bar, Bars

__all__ = ["BuildProgress", "interrupts"]


@contextmanager
def interrupts(note: Callable[[], None]) -> Iterator[None]:
    """Around a call of TensorRT: Ctrl-C calls `note`, and no KeyboardInterrupt is raised meanwhile.

    It could be raised in our logger, which C++ calls and through which no exception may pass. Python delivers
    signals to its main thread only, so in any other thread nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGINT, lambda number, frame: note())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


class BuildProgress(Bars):
    """One bar for each level of the phases that are under way; a context manager like `Bars`.

    The builder calls it from its own code, through which no exception may pass: an interrupt is kept in
    `stopped`, and the builder is asked to end, which it does at its next step.

    Attributes:
        stopped: whether the user interrupted the build.
    """

    def __init__(self, *, hidden: bool = False) -> None:
        super().__init__(hidden=hidden)
        self.stopped = False
        self._levels: list[Bar] = []
        self._depths: dict[str, int] = {}

    @property
    def phases(self) -> list[str]:
        """Phases under way, the outermost first."""
        return list(self._depths)

    def stop(self) -> None:
        """Ask the builder to end."""
        self.stopped = True

    def guarded(self, call: Callable[..., Any], *args: Any) -> bool:
        """Make a call on behalf of TensorRT, keeping an interrupt; returns whether the build may go on."""
        try:
            call(*args)
        except KeyboardInterrupt:
            self.stop()
        return not self.stopped

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins within `parent`."""
        depth = self._depths[phase] = self._depths.get(parent or "", -1) + 1
        if depth == len(self._levels):
            self._levels.append(self.add(""))
        self._levels[depth].restart("  " * depth + phase)
        self._levels[depth].update(0, steps)

    def step(self, phase: str, step: int) -> bool:
        """Step number `step`, from 0, is done; returns whether to go on."""
        if phase in self._depths:
            self._levels[self._depths[phase]].update(step + 1)
        return not self.stopped

    def finish(self, phase: str) -> None:
        """A phase ends, whether or not all its steps were done."""
        self._depths.pop(phase, None)
