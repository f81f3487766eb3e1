"""Reading pictures: every kind of file as people see it, and one clear line for what is none."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lse_core.errors import LSEError
from lse_core.pictures import PictureError, picture_files, read_picture

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16")


def pixels(height: int = 5, width: int = 7) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pictures_upright(tmp_path: Path, orientation: int) -> None:
    # block by block, so that JPEG's losses do not matter
    upright = Image.fromarray(np.kron(pixels(3, 4) // 128 * 255, np.ones((16, 16, 1), np.uint8)))
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Pillow's transpose methods
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    found = np.asarray(read_picture(tmp_path / "a.jpg")).astype(int)
    assert found.shape == (48, 64, 3)
    assert np.abs(found - np.asarray(upright)).max() < 8


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.asarray(read_picture(tmp_path / "a.png", 1)).tolist() == [[0, 1, 1, 1, 128, 255]]
    assert np.asarray(read_picture(tmp_path / "a.png"))[0, 4].tolist() == [128] * 3
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.asarray(read_picture(tmp_path / "a.tif", 1)).tolist() == [[0, 1, 1, 1, 128, 255]]


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    clear.save(tmp_path / "a.png")
    assert np.asarray(read_picture(tmp_path / "a.png")).tolist() == [[[255] * 3, [255, 0, 0]]]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "b.png", transparency=0)
    assert np.asarray(read_picture(tmp_path / "b.png")).tolist() == [[[255] * 3, [255, 0, 0]]]


def test_cmyk_and_grey(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(np.asarray(read_picture(tmp_path / "a.jpg"))[4, 4].astype(int) - [255, 0, 0]).max() < 6
    Image.fromarray(pixels()).save(tmp_path / "b.png")
    expected = (pixels() @ np.array([0.299, 0.587, 0.114])).round()
    assert np.abs(np.asarray(read_picture(tmp_path / "b.png", 1)) - expected).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_any_mode_and_size_becomes_grey_or_rgb(
    mode: str, size: tuple[int, int], channels: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if mode == "I;16":
        made = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    else:
        made = Image.fromarray(noise).convert(mode)
    name = "a.tif" if mode == "CMYK" else "a.png"
    path = tmp_path_factory.mktemp("modes") / name
    made.save(path)
    found = read_picture(path, channels)
    assert found.mode == ("RGB" if channels == 3 else "L")
    assert found.size == size
    if mode in ("RGB", "I;16"):
        plain = noise if mode == "RGB" else np.repeat(noise[..., :1], 3, -1)
        assert np.array_equal(np.asarray(found), np.asarray(Image.fromarray(plain).convert(found.mode)))


def test_of_an_animation_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (6, 4), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(read_picture(tmp_path / "a.gif", 1)).max() == 10


def huge_png(side: int) -> bytes:
    """A few hundred bytes that claim side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.png", None, "there is no picture"),
        ("text.png", b"no picture", "cannot be read as a picture: it is of no known format"),
        ("empty.jpg", b"", "cannot be read as a picture: the file is empty"),
        ("bomb.png", huge_png(20_000), "more than 178 million pixels.*save it at a smaller size"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PictureError, match=words) as caught:
        read_picture(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_pictures_and_unknown_ranges(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels(40, 40)).save(buffer, "jpeg")
    (tmp_path / "half.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(PictureError, match=r"half\.jpg cannot be read as a picture: .*truncated"):
        read_picture(tmp_path / "half.jpg")
    Image.fromarray(np.array([[0.0, 1.0]], np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(PictureError, match="floating-point numbers of unknown range"):
        read_picture(tmp_path / "float.tif")
    Image.fromarray(np.array([[0, 200]], np.int32)).save(tmp_path / "long.tif")
    with pytest.raises(PictureError, match="32-bit numbers of unknown range"):
        read_picture(tmp_path / "long.tif")
    with pytest.raises(PictureError, match="is a folder"):
        read_picture(tmp_path)
    with pytest.raises(LSEError, match="4 channels were asked for"):
        read_picture(tmp_path / "half.jpg", 4)


def test_large_photographs_are_no_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    Image.fromarray(pixels()).save(tmp_path / "a.png")  # 35 pixels: Pillow alone would warn
    assert read_picture(tmp_path / "a.png").size == (7, 5)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    with pytest.raises(PictureError, match="more than"):
        read_picture(tmp_path / "a.png")


def test_files_are_found_in_folders(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deep" / "empty").mkdir(parents=True)
    (tmp_path / "deep" / "c.png").symlink_to("nowhere.png")  # said to be missing when it is read
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "d.png").write_bytes(b"")
    assert [f.name for f in picture_files([tmp_path, tmp_path / "notes.txt"])] == [
        "a.jpg",
        "b.PNG",
        "c.png",
        "notes.txt",
    ]
    with pytest.raises(PictureError, match="absent: no such file or folder"):
        picture_files([tmp_path / "absent"])
    with pytest.raises(PictureError, match=r"empty holds no pictures: files count whose names end in \.bmp"):
        picture_files([tmp_path, tmp_path / "deep" / "empty"])


def test_the_reader_is_pillows_own_where_nothing_is_special(tmp_path: Path) -> None:
    Image.fromarray(pixels(30, 20)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as file:
        expected = ImageOps.exif_transpose(file).convert("RGB")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.jpg")), np.asarray(expected))
