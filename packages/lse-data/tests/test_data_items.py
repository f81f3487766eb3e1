"""Which pictures the words of a command line stand for."""

from pathlib import Path

import pytest
from PIL import Image

from lse_core.errors import DataError
from lse_data.items import items_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "a.mask.png", "b.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    return tmp_path


def test_masks_are_no_pictures_however_the_folder_is_named(photos: Path) -> None:
    assert [item.name for item in items_of([photos])] == ["a.png", "b.png"]
    every = sorted(photos.glob("*"))  # as a shell does for photos/*
    assert [item.file for item in items_of([*every, photos / "a.png"])] == [
        photos / "a.png",
        photos / "b.png",
    ]
    assert [item.file for item in items_of([photos / "a.mask.png"])] == [photos / "a.mask.png"]
    with pytest.raises(DataError, match="no pictures were given"):
        items_of([photos / "a.mask.png", photos / "a.mask.png"])
