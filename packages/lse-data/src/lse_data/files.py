"""What all generators share: where their files go, how a finished data set gets there, and the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from lse_core.errors import OutputError

__all__ = ["cache_place", "check_folder", "move_in"]


def check_folder(folder: Path, force: bool) -> None:
    """Raise `OutputError` unless `folder` is absent, empty, or a folder that `force` allows to change."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder to write to")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; name another folder, or replace its data set with --force")


def move_in(partial: Path, folder: Path, last: str = "") -> None:
    """Move a finished data set into `folder`; other files there stay.

    Args:
        partial: its files and folders, each of which replaces what has its name.
        folder: where; made if absent.
        last: the file that says that the data set is finished: taken away first and moved last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if last:
        (folder / last).unlink(missing_ok=True)
    for source in sorted(partial.iterdir(), key=lambda p: (p.name == last, p.name)):
        if source.is_dir():
            shutil.rmtree(folder / source.name, ignore_errors=True)
        os.replace(source, folder / source.name)


def cache_place(kind: str, cache_dir: str | os.PathLike[str] | None, *meaning: Any) -> Path:
    """The path of a generated data set, named by a hash of all that decides its bytes.

    Args:
        kind: folder within the cache.
        cache_dir: the cache; None is the environment variable LSE_CACHE, else ~/.cache/lse.
        meaning: JSON values.
    """
    root = cache_dir or os.environ.get("LSE_CACHE") or Path.home() / ".cache" / "lse"
    text = json.dumps(meaning, sort_keys=True)
    return Path(root) / kind / hashlib.sha256(text.encode()).hexdigest()[:24]
