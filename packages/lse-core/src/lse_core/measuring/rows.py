"""Rows of numbers, one a picture, kept in a file at once, so that nothing is measured twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lse_core.errors import OutputError

__all__ = ["Rows"]


class Rows:
    """What one model answered, by picture.

    With a folder, each row is a line of JSON in a file there as soon as it is known. A file that was cut
    off in the middle of a line goes on after the last whole one. Numbers survive the file bit for bit.

    Args:
        folder: where to keep the file; None keeps rows in memory alone.
        head: everything that rows depend on, as JSON values. Its hash is the file's name, so rows that were
            measured with other settings are never taken for these.

    Raises:
        OutputError: the file cannot be written or read.
    """

    def __init__(self, folder: Path | None, head: Mapping[str, Any]) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self.path: Path | None = None
        if folder is None:
            return
        line = json.dumps(head, sort_keys=True)
        self.path = folder / f"{hashlib.sha256(line.encode()).hexdigest()[:16]}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._read(line)
        except OSError as error:
            raise OutputError(f"cannot keep rows in {self.path}: {error.strerror or error}") from error

    def _read(self, head: str) -> None:
        assert self.path is not None
        whole = 0
        if self.path.exists():
            with self.path.open("rb") as file:
                for number, line in enumerate(file):
                    if not line.endswith(b"\n") or (number == 0 and line.decode().rstrip("\n") != head):
                        break
                    whole += len(line)
                    if number:
                        row = json.loads(line)
                        self.found[row["picture"]] = row
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(whole)
            if not whole:
                file.write(head.encode() + b"\n")

    def __contains__(self, picture: str) -> bool:
        return picture in self.found

    def add(self, row: dict[str, Any]) -> None:
        """Keep the row of the picture `row["picture"]`.

        Raises:
            OutputError: the file cannot be written, because the disk is full, for instance.
        """
        # a row that was read again and one that was not are the same: tuples are lists in both
        line = json.dumps(row, allow_nan=False)
        if self.path is not None:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.found[row["picture"]] = row
