"""Writing files and folders so that they appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lse_core.errors import OutputError

__all__ = ["check_target", "replacing", "staging", "usual_mode"]


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `target` for unfinished files; it is deleted when the block ends.

    It lies on the target's file system, so that `os.replace` moves a finished file or folder at once. The
    folder that holds `target` is made if absent.

    Raises:
        OutputError: in place of an OSError, from the block too, as one line that names `target`.
    """
    folder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield folder
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def check_target(path: Path, overwrite: bool) -> None:
    """Raise an OutputError if `path` is a folder, exists and `overwrite` is false, or lies below a file.

    Called before the work begins, so that nobody waits for a file that cannot be written.

    Raises:
        OutputError: it is refused.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} exists already; choose another name or allow overwriting (a command's --force)"
        )
    above = next((parent for parent in path.parents if parent.exists()), None)
    if above is not None and not above.is_dir():
        raise OutputError(f"cannot write {path}: {above} is not a directory")


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block ends without an error.

    Files written next to the temporary path move along, before the file that may refer to them. After an
    error nothing is left behind, and an earlier file is as it was.

    Raises:
        OutputError: the target is refused (`check_target`) or cannot be written.
    """
    check_target(path, overwrite)
    with staging(path) as folder:
        yield folder / path.name
        for written in sorted(folder.iterdir(), key=lambda f: f.name == path.name):
            usual_mode(written)
            os.replace(written, path.parent / written.name)


def usual_mode(path: Path) -> None:
    """Set the permissions that the umask gives to new files; some libraries let only the owner read."""
    probe = path.with_name(f"{path.name}.mode")
    probe.touch()
    path.chmod(probe.stat().st_mode & 0o777)
    probe.unlink()
