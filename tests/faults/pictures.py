"""Pictures that are damaged, odd, huge or missing, for every command that reads pictures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from faults.fault import Fault, cut, fault, write
from PIL import Image

PICTURE = "photos/cup/0.png"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size, without its pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def float_picture(place: Path) -> None:
    Image.new("F", (8, 8), 0.5).save(place / "photos/cup/0.tif")
    (place / PICTURE).unlink()
    (place / "photos/cup/0.tif").rename(place / PICTURE)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "an empty file": (write(PICTURE, b""), "0.png"),
    "a text file": (write(PICTURE, "no picture at all"), "0.png"),
    "a picture cut short": (cut(PICTURE, 0.6), "0.png"),
    "a picture of 20,000 x 20,000 px": (write(PICTURE, png(20_000, 20_000)), "0.png"),
    "a picture of 100,000 x 100,000 px": (write(PICTURE, png(100_000, 100_000)), "0.png"),
    "a picture of no pixels": (write(PICTURE, png(0, 0)), "0.png"),
    "a picture of floating numbers": (float_picture, "0.png"),
    "a folder that is called like a picture": (
        lambda place: ((place / PICTURE).unlink(), (place / PICTURE).mkdir(), None)[2],
        "0.png",
    ),
    "a link to nowhere": (
        lambda place: ((place / PICTURE).unlink(), (place / PICTURE).symlink_to("gone.png"), None)[2],
        "0.png",
    ),
}

READERS = {
    "predict": f"predict model.onnx {PICTURE}",
    "predict, from a folder": f"predict model {PICTURE}",
    "look": f"look model {PICTURE} --out look.png",
    "warp": f"warp {PICTURE} --out warped",
    "export onnx": f"export onnx model --out new.onnx --images {PICTURE}",
    "export verify": f"export verify model.onnx model --images {PICTURE}",
}

FAULTS: list[Fault] = [
    *(
        fault(f"{what}, read by {reader}", args, words, prepare=damage, status=1)
        for what, (damage, words) in DAMAGE.items()
        for reader, args in READERS.items()
        if what not in ("a folder that is called like a picture", "a link to nowhere")
    ),
    fault("a picture that is not there, for predict", "predict model.onnx none.png", "none.png"),
    fault("a picture that is not there, for look", "look model none.png --out look.png", "none.png"),
    fault("a picture that is not there, for warp", "warp none.png --out warped", "none.png"),
    fault("a folder without pictures", "predict model.onnx digits", "digits", "no pictures"),
    fault(
        "an empty folder",
        "predict model.onnx empty",
        "empty",
        prepare=lambda place: (place / "empty").mkdir(),
    ),
    fault(
        "a data folder without classes",
        "train run.yaml --out new --set data.options.root=digits --set data.train.root=digits",
        "digits",
    ),
    fault("a data folder that is not there", "train run.yaml --out new --set data.train.root=gone", "gone"),
    fault(
        "a damaged picture in a data folder, when training",
        "train run.yaml --out new",
        "0.png",
        prepare=write(PICTURE, b"x"),
        changes=("new", "new/*"),  # the run goes on from here when the picture is mended
    ),
    fault(
        "a damaged picture among good ones, left out",
        "predict model.onnx photos --skip-bad --out out.csv",
        prepare=write(PICTURE, png(20_000, 20_000)),
        status=0,
        changes=("out.csv",),
    ),
    fault(
        "a damaged picture among good ones, not left out",
        "predict model.onnx photos --out out.csv",
        "0.png",
        "--skip-bad",
        prepare=write(PICTURE, b"x"),
    ),
]
