"""A run among other processes: signals, the lock on its folder, and devices by Lightning Fabric.

Fabric rather than Lightning's Trainer: the Trainer keeps the order of data and the place within an epoch to
itself, and resumes in the middle of one only as well as its loaders do; and two parts with rules of their
own (which learns when, whose gradient is bounded how) would leave of it only what Fabric has.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from lse_core.errors import LSEError, OutputError
from lse_train.config import ConfigError, RunConfig

__all__ = ["RunInterruptedError", "Signals", "launch", "signals_noted", "sole_writer"]

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float64": "64-true"}


class RunInterruptedError(LSEError):
    """A run was stopped on purpose; its state is written, and the same call continues it.

    Attributes:
        status: exit status of a program that ends for this reason: 130 after SIGINT, 143 after SIGTERM.
    """

    status = 130


class Signals:
    """Whether SIGINT or SIGTERM came, and which."""

    received = False
    number = int(signal.SIGINT)


@contextmanager
def signals_noted() -> Iterator[Signals]:
    """Note SIGINT and SIGTERM while the block runs; a second one acts as if this were not here.

    In threads other than the main one, which cannot catch signals, it notes nothing.
    """
    signals, old = Signals(), dict[signal.Signals, Any]()

    def restore() -> None:
        while old:
            signal.signal(*old.popitem())

    def note(number: int, frame: Any) -> None:
        signals.received, signals.number = True, number
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, note)
    try:
        yield signals
    finally:
        restore()


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold `folder`, made if absent, while the block runs; the system lets go of it when the process dies.

    Two processes would train the same run, each over the other's files.

    Raises:
        OutputError: another run holds it, or it cannot be written.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputError(
            f"another process is writing to {folder}: wait until it has ended, or choose another --out"
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; choose another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def launch(config: RunConfig) -> Any:
    """Fabric for this process: one of torchrun's, or the only one.

    Raises:
        ConfigError: a device that is not here.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    kind = config.device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"device {config.device!r} cannot be used here; try device: cpu")
    options: dict[str, Any] = {"devices": 1}
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        backend = "gloo" if kind == "cpu" else None
        # a part that does not learn in a phase has no gradient
        strategy = DDPStrategy(find_unused_parameters=True, process_group_backend=backend)
        options = {"devices": local, "num_nodes": world // local, "strategy": strategy}
    fabric = Fabric(precision=PRECISIONS[config.precision], accelerator=kind, **options)  # type: ignore[arg-type]
    fabric.launch()
    return fabric
