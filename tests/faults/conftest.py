"""The workshop, made once and copied for every fault."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.workshop import build


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `faults.workshop.build`."""
    place = tmp_path_factory.mktemp("workshop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        build(place)
    return place


@pytest.fixture
def place(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the workshop, which is also the current folder."""
    copy = tmp_path / "workshop"
    shutil.copytree(workshop, copy, symlinks=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))
    yield copy
    for path in copy.rglob("*"):  # what a fault made unreadable
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
