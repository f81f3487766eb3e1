"""Preprocessing inside the graph: raw pictures in, resized, cropped and normalised as the model wants them.

Resizing is two products with constant matrices, so it is anti-aliased without the operator that TensorRT
does not take; the picture's size is therefore fixed when the file is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnx
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lse_core.errors import DTypeError, LSEError, ShapeError, unknown_name
from lse_core.pictures import read_picture
from lse_core.preprocess import Preprocess, preprocess_of
from lse_core.settings import Settings, validated
from lse_export.errors import ExportError
from lse_export.gate.graph import type_name
from lse_export.metadata import damaged, json_in, read_metadata

__all__ = [
    "LAYOUTS",
    "Prepare",
    "RawPictures",
    "facts_of",
    "input_of",
    "pictures_for",
    "prepared_in",
    "raw_in",
    "raw_picture",
    "raw_pictures",
    "raw_pictures_of",
    "shown",
    "told_by",
]

LAYOUTS = ("nhwc", "nchw")

LONGEST = 65536  # pixels a side
MOST_WEIGHTS = 2**27  # numbers in a matrix that resizes one axis, 1 GiB while it is computed

Side = Annotated[int, Field(ge=1, le=LONGEST)]

Takes = tuple[str, Sequence[int | None]]
"""Type and shape of a file's input, None where a size varies."""


class RawPictures(Settings):
    """What a file takes that prepares pictures itself: uint8, 0 to 255, of one size.

    Attributes:
        source: (height, width) of the pictures.
        layout: "nhwc", as decoders give pictures, or "nchw".
        preprocess: what the graph does with them.
    """

    source: tuple[Side, Side]
    layout: Literal["nhwc", "nchw"] = "nhwc"
    preprocess: Preprocess

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one raw picture."""
        c = self.preprocess.channels
        return (*self.source, c) if self.layout == "nhwc" else (c, *self.source)


def raw_pictures_of(model: nn.Module, source: tuple[int, int], layout: str = "nhwc") -> RawPictures:
    """What a file of `model` would take that prepares pictures of one size itself.

    Args:
        model: a model that says how its pictures are prepared (`lse_core.preprocess_of`).
        source: (height, width) of raw pictures.
        layout: "nhwc" or "nchw".

    Raises:
        ExportError: the model does not say it.
        UnknownNameError, SettingsError: no such layout, or a picture without pixels.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    preprocess = preprocess_of(model)
    if preprocess is None:
        raise ExportError(
            f"{type(model).__name__} does not say how its pictures are prepared: save it with "
            "lse_dec.save(..., preprocess=...), or prepare pictures outside of the graph"
        )
    values = {"source": source, "layout": layout, "preprocess": preprocess}
    return validated(RawPictures, values, "raw pictures")


def facts_of(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file; empty for what is none (whoever runs it says what is wrong with it)."""
    return told_by(path)[0]


def told_by(path: Path) -> tuple[dict[str, str], Takes]:
    """The metadata of an ONNX file and what it takes; ({}, ("unknown", ())) for what is none."""
    try:
        proto = onnx.load_model(path, load_external_data=False)
    except Exception:
        return {}, ("unknown", ())
    return read_metadata(proto), input_of(proto)


def input_of(proto: onnx.ModelProto) -> Takes:
    """Type and shape of a graph's first input, ("unknown", ()) for one without inputs."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name not in constants:
            kind = value.type.tensor_type
            sizes = [d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim]
            return type_name(kind.elem_type), sizes
    return "unknown", ()


def prepared_in(facts: Mapping[str, str], where: str) -> Preprocess | None:
    """How a file wants its pictures, by its metadata; None where it does not say.

    Raises:
        ExportError: the metadata are damaged, or of numbers out of range; `where` names the file.
    """
    told = json_in(facts, "lse.preprocess", where, dict, bool)
    if told is None:
        return None
    try:
        return validated(Preprocess, told, "it")
    except (LSEError, OverflowError) as error:  # the latter for numbers that no float holds
        raise damaged(where, "lse.preprocess", str(error).removeprefix("it: ")) from error


def raw_in(facts: Mapping[str, str], where: str, takes: Takes | None = None) -> RawPictures | None:
    """What a file takes that prepares pictures itself; None for a file that takes prepared images.

    Args:
        facts: metadata by key.
        where: whose metadata these are, for errors.
        takes: the file's input, which must be what the metadata say; None does not ask.

    Raises:
        ExportError, SettingsError, UnknownNameError: the metadata were changed by hand.
    """
    told = json_in(facts, "lse.raw_pictures", where, dict, bool)
    if told is None:
        return None
    raw = validated(RawPictures, {**told, "preprocess": prepared_in(facts, where)}, where)
    kind, shape = takes or ("uint8", (None, *raw.shape))
    if kind != "uint8" or tuple(shape[1:]) != raw.shape:
        raise ExportError(
            f"{where} takes {kind} {shown(shape)}, but its metadata lse.raw_pictures tell of raw pictures, "
            f"uint8 {shown([None, *raw.shape])}; export it again"
        )
    return raw


def shown(shape: Sequence[int | None]) -> str:
    """A shape for people; what varies is "any"."""
    return f"({', '.join('any' if n is None else str(n) for n in shape)})"


def raw_pictures(files: Sequence[str | Path], raw: RawPictures) -> Tensor:
    """Pictures as a file takes them that prepares them itself, uint8 (n, H, W, C) or (n, C, H, W).

    Pictures of another size are scaled to cover the file's, which keeps their proportions, and cut
    about the centre. Without any picture: two of noise.

    Raises:
        PictureError: a file is no picture.
    """
    if not files:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (2, *raw.shape), generator=generator, dtype=torch.uint8)
    return torch.stack([raw_picture(file, raw)[0] for file in files])


def pictures_for(facts: Mapping[str, str], files: Sequence[str | Path], where: str, takes: Takes) -> Tensor:
    """Pictures as a file with these metadata takes them: raw or prepared, a batch on the CPU.

    Args:
        facts: metadata by key.
        files: the pictures.
        where: whose metadata these are, for errors.
        takes: the file's input.

    Raises:
        ExportError: the metadata do not say how pictures are prepared.
        PictureError: a file is no picture.
    """
    raw = raw_in(facts, where, takes)
    if raw is not None:
        return raw_pictures(files, raw)
    preprocess = prepared_in(facts, where)
    if preprocess is None:
        raise ExportError(f"{where} says nothing of how pictures are prepared")
    return preprocess.batch(files)


def raw_picture(file: str | Path, raw: RawPictures) -> tuple[Tensor, bool]:
    """One picture as `raw_pictures` has it, without the batch axis, and whether it had the right size."""
    h, w = raw.source
    picture = read_picture(file, raw.preprocess.channels)
    fits = picture.size == (w, h)
    if not fits:
        from PIL import ImageOps

        picture = ImageOps.fit(picture, (w, h))
    pixels = torch.from_numpy(np.array(picture).reshape(h, w, -1))
    if raw.preprocess.colours == "bgr":
        pixels = pixels.flip(-1)
    return (pixels if raw.layout == "nhwc" else pixels.permute(2, 0, 1).contiguous()), fits


class Prepare(nn.Module):
    """Raw pictures to model input: uint8 (B, H, W, C) or (B, C, H, W) to float32 (B, C, h, w).

    The same as `Preprocess.read` does with Pillow: values are rounded to whole levels after each axis, x
    first. A value that falls between two levels by less than rounding may come out one level apart.
    """

    def __init__(self, raw: RawPictures) -> None:
        super().__init__()
        self.raw = raw
        self.offset = 0.5  # rounds to the nearest level
        for axis, name in enumerate(("along_y", "along_x")):
            weights = _weights(raw, axis)
            self.register_buffer(name, weights if axis == 0 else weights.T.contiguous(), persistent=False)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (raw.preprocess.mean, raw.preprocess.std))
        self.register_buffer("factor", 1.0 / (255.0 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    along_y: Tensor
    along_x: Tensor
    factor: Tensor
    shift: Tensor

    def forward(self, picture: Tensor) -> Tensor:
        """The model's input; ShapeError or DTypeError for anything but raw pictures of the right shape."""
        if picture.ndim != 4 or tuple(picture.shape[1:]) != self.raw.shape:
            raise ShapeError(
                f"expected raw pictures (batch, {', '.join(map(str, self.raw.shape))}); "
                f"got shape {tuple(picture.shape)}"
            )
        if picture.dtype != torch.uint8:
            raise DTypeError(f"raw pictures are uint8, 0 to 255; got {picture.dtype}")
        x = picture.to(torch.float32)
        if self.raw.layout == "nhwc":
            x = x.permute(0, 3, 1, 2)
        # bicubic weights overshoot at edges; pictures are cut to their range after each axis, x first
        x = ((x @ self.along_x) + self.offset).floor().clamp(0.0, 255.0)
        x = ((self.along_y @ x) + self.offset).floor().clamp(0.0, 255.0)
        return x * self.factor + self.shift


def _weights(raw: RawPictures, axis: int) -> Tensor:
    """The matrix (size, source) that resizes and crops one axis: torch's own resize of the unit matrix."""
    preprocess = raw.preprocess
    source, size = raw.source[axis], (preprocess.size or raw.source)[axis]
    between = preprocess.resized(raw.source)
    if source * max(source, between[axis]) > MOST_WEIGHTS:
        side = "height" if axis == 0 else "width"
        raise ExportError(
            f"resizing pictures of {raw.source[0]} x {raw.source[1]} pixels to {between[axis]} pixels in "
            f"{side} takes too large a matrix; take smaller pictures, or resize them outside of the file"
        )
    weights = functional.interpolate(
        torch.eye(source, dtype=torch.float64)[None, None],
        size=(between[axis], source),
        mode=preprocess.interpolation,
        align_corners=False,
        antialias=True,
    )[0, 0]
    start = preprocess.crop(between)[axis]
    # Pillow computes with weights of 22 binary digits; a sum between two levels then falls as there
    return (weights[start : start + size] * 2**22).round().div(2**22).float().contiguous()
