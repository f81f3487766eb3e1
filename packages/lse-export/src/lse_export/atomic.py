"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lse_core.errors import OutputError

__all__ = ["check_target", "replacing"]


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a target that is a folder, or that exists while `overwrite` is off; raises OutputError.

    Called before the work begins, so that nobody waits for a file that cannot be written.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; choose another name or allow overwriting")


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there takes its place when the block ends well.

    Files written next to the temporary path (external weights) move along, before the file that
    refers to them. After an error nothing is left behind.

    Raises:
        OutputError: the target is refused (`check_target`) or cannot be written.
    """
    check_target(path, overwrite)
    folder: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield folder / path.name
        for written in sorted(folder.iterdir(), key=lambda f: f.name == path.name):
            os.replace(written, path.parent / written.name)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
