"""One process writes to a folder: two would train the same run, each over the other's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lse_core.errors import OutputError

__all__ = ["sole_writer"]


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold `folder`, made if absent, while the block runs; the system lets go of it when the process dies.

    Raises:
        OutputError: another run holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

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
