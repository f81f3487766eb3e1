"""Preprocessing inside the graph: raw pictures are resized, cropped and normalised for the model.

Resizing is two products with constant matrices, so it is anti-aliased without the operator that TensorRT
does not take; the picture's size is therefore fixed when the file is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import ImageOps
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lse_core.errors import DTypeError, ShapeError
from lse_core.moved import moved_names
from lse_core.pictures import read_picture
from lse_core.preprocess import Preprocess, preprocess_of
from lse_core.settings import Settings, validated
from lse_export.errors import ExportError

__all__ = ["Prepare", "RawPictures", "preprocessing_of", "raw_pictures_of"]
__getattr__ = moved_names(__name__)

LONGEST = 65536  # pixels a side
MOST_WEIGHTS = 2**27  # numbers in a matrix that resizes one axis, 1 GiB while it is computed

Side = Annotated[int, Field(ge=1, le=LONGEST)]


class RawPictures(Settings):
    """The pictures that a file takes which prepares them itself: uint8, 0 to 255, of one size.

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

    def fitted(self, path: str | Path) -> tuple[Tensor, bool]:
        """One picture as the file takes it, uint8 of `shape`, and whether it had the right size.

        A picture of another size is scaled to cover the file's, which keeps its proportions, and cut about
        the centre.

        Raises:
            PictureError: the file is no picture.
        """
        h, w = self.source
        picture = read_picture(path, self.preprocess.channels)
        fits = picture.size == (w, h)
        pixels = torch.from_numpy(
            np.array(picture if fits else ImageOps.fit(picture, (w, h))).reshape(h, w, -1)
        )
        if self.preprocess.colours == "bgr":
            pixels = pixels.flip(-1)
        return (pixels if self.layout == "nhwc" else pixels.permute(2, 0, 1).contiguous()), fits

    def read(self, path: str | Path) -> Tensor:
        """One picture, see `fitted`."""
        return self.fitted(path)[0]

    def batch(self, paths: Iterable[str | Path]) -> Tensor:
        """Pictures as one batch, uint8 (n, *shape)."""
        return torch.stack([self.read(path) for path in paths])

    def sample(self) -> Tensor:
        """Two pictures of noise, where none is at hand; always the same."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (2, *self.shape), generator=generator, dtype=torch.uint8)


def preprocessing_of(model: nn.Module) -> Preprocess:
    """How the model's pictures are prepared; ExportError if the model does not say so."""
    found = preprocess_of(model)
    if found is None:
        raise ExportError(
            f"{type(model).__name__} does not say how its pictures are prepared: save it with "
            "lse_dec.save(..., preprocess=...)"
        )
    return found


def raw_pictures_of(model: nn.Module, source: tuple[int, int], layout: str = "nhwc") -> RawPictures:
    """The pictures that a file of `model` would take which prepares pictures of one size itself.

    Args:
        model: a model that says how its pictures are prepared (`lse_core.preprocess_of`).
        source: (height, width) of raw pictures.
        layout: "nhwc" or "nchw".

    Raises:
        ExportError: the model does not say it.
        SettingsError: there is no such layout, or a picture without pixels.
    """
    values = {"source": source, "layout": layout, "preprocess": preprocessing_of(model)}
    return validated(RawPictures, values, "raw pictures")


class Prepare(nn.Module):
    """Raw pictures to model input: uint8 (B, H, W, C) or (B, C, H, W) to float32 (B, C, h, w).

    The same as `Preprocess.read` does with Pillow: values are rounded to whole levels after each axis, x
    first. A value that falls between two levels by less than rounding may come out one level apart.
    """

    along_y: Tensor
    along_x: Tensor
    factor: Tensor
    shift: Tensor

    def __init__(self, raw: RawPictures) -> None:
        super().__init__()
        self.raw = raw
        self.offset = 0.5  # rounds to the nearest level
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (raw.preprocess.mean, raw.preprocess.std))
        self.register_buffer("along_y", _weights(raw, 0), persistent=False)
        self.register_buffer("along_x", _weights(raw, 1).T.contiguous(), persistent=False)
        self.register_buffer("factor", 1.0 / (255.0 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        """The model's input; ShapeError or DTypeError for anything but raw pictures of the right shape."""
        kind = getattr(picture, "dtype", type(picture).__name__)
        if kind != torch.uint8:
            raise DTypeError(
                f"the file prepares pictures itself: give raw ones, uint8 from 0 to 255, not {kind}"
            )
        if picture.ndim != 4 or tuple(picture.shape[1:]) != self.raw.shape or not picture.shape[0]:
            raise ShapeError(
                f"the file takes pictures (batch, {', '.join(map(str, self.raw.shape))}); "
                f"got shape {tuple(picture.shape)}"
            )
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
