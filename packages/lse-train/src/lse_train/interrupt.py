"""Ctrl-C and SIGTERM while a run goes on: finish the step, write the state, say how to go on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from lse_core.errors import LSEError

__all__ = ["RunInterruptedError", "Signals"]


class RunInterruptedError(LSEError):
    """A run was stopped on purpose; its state is written, and the same call goes on from there.

    Args:
        step: steps done.
        steps: steps in all.
        folder: the run's.
    """

    def __init__(self, step: int, steps: int, folder: Path) -> None:
        super().__init__(
            f"interrupted after step {step} of {steps}; the state is in {folder}: "
            "the same command goes on from it"
        )


class Signals:
    """Notes SIGINT and SIGTERM while the block runs; a second one acts as if this were not here.

    In threads other than the main one, which cannot catch signals, it notes nothing.
    """

    def __init__(self) -> None:
        self.received = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
        self._old = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
