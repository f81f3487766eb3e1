"""Pictures by file and name, whichever files and folders were given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lse_core.errors import DataError
from lse_core.pictures import picture_files
from lse_data.masks import Marks

__all__ = ["Item", "digest_of", "items_of"]


@dataclass(frozen=True)
class Item:
    """A picture's file, and its name in the report: its path relative to the one folder that was given, or as
    it was given."""

    file: Path
    name: str

    def stamp(self, other: Path | None) -> str:
        """What changes when the file, or that of its marks, is replaced by another."""
        told = [f"{f.stat().st_size} {f.stat().st_mtime_ns}" for f in (self.file, other) if f is not None]
        return f"{self.name} {' '.join(told)}"


def items_of(paths: Sequence[str | Path]) -> list[Item]:
    """The pictures that `paths` name, files and folders, without any picture twice.

    Files called NAME.mask.png are left out, in folders and where several files are named, as a shell does
    for `photos/*`.

    Raises:
        DataError: there is none.
        PictureError: a path does not exist, or a folder holds no picture.
    """
    found: dict[str, Item] = {}
    for path in paths:
        root = Path(path)
        for file in picture_files([root]):
            if file.name.endswith(".mask.png") and (root.is_dir() or len(paths) > 1):
                continue
            name = file.relative_to(root) if len(paths) == 1 and root.is_dir() else file
            found.setdefault(name.as_posix(), Item(file, name.as_posix()))
    if not found:
        raise DataError("no pictures were given: name at least one picture or folder of pictures")
    return list(found.values())


def digest_of(items: Sequence[Item], marks: Marks) -> str:
    """A hash of the pictures and their marks: their names, sizes and times of change."""
    text = "\n".join(item.stamp(marks.file(item.file, item.name)) for item in items)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
