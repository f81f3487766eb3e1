"""Preprocessing inside the graph: raw pictures in, resized, cropped and normalised as timm does it.

Resizing is two products with constant matrices, so it is anti-aliased without the operator that TensorRT
does not take; the picture's size is therefore fixed when the file is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from lse_core.errors import DTypeError, LSEError, ShapeError, unknown_name
from lse_export.errors import ExportError
from lse_export.images import preparation_of, read_picture
from lse_export.metadata import read_metadata

__all__ = ["LAYOUTS", "Preprocess", "Recipe", "raw_pictures", "recipe_in", "recipe_of"]

LAYOUTS = ("nhwc", "nchw")
FILTERS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class Recipe:
    """From a raw picture to what a model takes; timm's evaluation transform for one size of picture.

    Attributes:
        source: (height, width) of raw pictures.
        size: (height, width) that the model takes.
        resized: (height, width) in between: resized to this, then cropped about the centre.
        interpolation: "bicubic" or "bilinear", both anti-aliased.
        mean: by channel, of values in [0, 1].
        std: by channel, of values in [0, 1].
        layout: of raw pictures, "nhwc" or "nchw".
    """

    source: tuple[int, int]
    size: tuple[int, int]
    resized: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str = "nhwc"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one raw picture."""
        c = len(self.mean)
        return (*self.source, c) if self.layout == "nhwc" else (c, *self.source)

    def to_json(self) -> str:
        """As text for metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)


def recipe_of(model: nn.Module, source: tuple[int, int], layout: str = "nhwc") -> Recipe:
    """The recipe for pictures of one size, from timm's data config of the model (`pretrained_cfg`).

    Args:
        model: a timm model, adapted or not.
        source: (height, width) of raw pictures.
        layout: "nhwc", as decoders give pictures, or "nchw".

    Raises:
        ExportError: the model has no data config, or one with another filter or crop than known here.
        UnknownNameError: no such layout.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if min(source) < 1:
        raise LSEError(f"pictures must have at least one pixel a side; got {source}")
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    if "mean" not in config or "std" not in config:
        raise ExportError(
            f"{type(model).__name__} does not say how its images are prepared (timm's pretrained_cfg); "
            "prepare them outside of the graph"
        )
    interpolation, mode = config.get("interpolation", "bicubic"), config.get("crop_mode", "center")
    if interpolation not in FILTERS:
        raise unknown_name("interpolation of a data config", interpolation, FILTERS)
    if mode not in ("center", "squash"):
        raise unknown_name("crop_mode of a data config", mode, ("center", "squash"))
    p = preparation_of(model)
    share = config.get("crop_pct") or 0.875
    wanted = (int(p.height / share), int(p.width / share))
    if mode == "squash":
        resized = wanted
    elif p.height == p.width:  # the short side to the wanted size, the long one in proportion
        short, long = sorted(source)
        other = int(wanted[0] * long / short)
        resized = (wanted[0], other) if source[0] <= source[1] else (other, wanted[0])
    else:
        ratio = max(wanted[0] / source[0], wanted[1] / source[1])
        resized = (round(source[0] * ratio), round(source[1] * ratio))
    if resized[0] < p.height or resized[1] < p.width:
        raise ExportError(f"pictures of {source} become {resized}, smaller than the model's {p.height}")
    return Recipe(source, (p.height, p.width), resized, interpolation, p.mean, p.std, layout)


def recipe_in(path: Path) -> Recipe | None:
    """The recipe that a file follows by itself; None for a file that takes prepared images, or no ONNX."""
    try:
        facts = read_metadata(onnx.load_model(path, load_external_data=False))
    except Exception:  # whoever runs the file says what is wrong with it
        return None
    return Recipe.from_json(facts["lse.preprocess"]) if "lse.preprocess" in facts else None


def raw_pictures(files: Sequence[Path], recipe: Recipe) -> Tensor:
    """Pictures as a file with this recipe takes them, uint8 (n, H, W, C) or (n, C, H, W).

    Pictures of another size are scaled to cover the recipe's, which keeps their proportions, and cut
    about the centre. Without any picture: two of noise.

    Raises:
        ExportError: a file is no picture.
    """
    h, w = recipe.source
    if not files:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (2, *recipe.shape), generator=generator, dtype=torch.uint8)
    batch = []
    for file in files:
        picture = read_picture(file, len(recipe.mean))
        if picture.size != (w, h):
            from PIL import ImageOps

            picture = ImageOps.fit(picture, (w, h))
        batch.append(torch.from_numpy(np.array(picture).reshape(h, w, -1)))
    stacked = torch.stack(batch)
    return stacked if recipe.layout == "nhwc" else stacked.permute(0, 3, 1, 2).contiguous()


class Preprocess(nn.Module):
    """Raw pictures to model input by a `Recipe`: uint8 (B, H, W, C) or (B, C, H, W) to (B, C, h, w).

    Differs from timm's transform, which rounds to whole levels after each axis, by at most two levels
    of 255 (and, on average, by a quarter of one).
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        for axis, name in enumerate(("along_y", "along_x")):
            weights = _weights(recipe, axis)
            self.register_buffer(name, weights if axis == 0 else weights.T.contiguous(), persistent=False)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (recipe.mean, recipe.std))
        self.register_buffer("factor", 1.0 / (255.0 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    along_y: Tensor
    along_x: Tensor
    factor: Tensor
    shift: Tensor

    def forward(self, picture: Tensor) -> Tensor:
        """The model's input; ShapeError or DTypeError for anything but raw pictures of the recipe's shape."""
        if picture.ndim != 4 or tuple(picture.shape[1:]) != self.recipe.shape:
            raise ShapeError(
                f"expected raw pictures (batch, {', '.join(map(str, self.recipe.shape))}); "
                f"got shape {tuple(picture.shape)}"
            )
        if picture.dtype != torch.uint8:
            raise DTypeError(f"raw pictures are uint8, 0 to 255; got {picture.dtype}")
        x = picture.to(torch.float32)
        if self.recipe.layout == "nhwc":
            x = x.permute(0, 3, 1, 2)
        # bicubic weights overshoot at edges; pictures are cut to their range after each axis, x first
        x = (x @ self.along_x).clamp(0.0, 255.0)
        x = (self.along_y @ x).clamp(0.0, 255.0)
        return x * self.factor + self.shift


def _weights(recipe: Recipe, axis: int) -> Tensor:
    """The matrix (size, source) that resizes and crops one axis: torch's own resize of the unit matrix."""
    source, resized, size = recipe.source[axis], recipe.resized[axis], recipe.size[axis]
    weights = functional.interpolate(
        torch.eye(source)[None, None],
        size=(resized, source),
        mode=recipe.interpolation,
        align_corners=False,
        antialias=True,
    )[0, 0]
    start = round((resized - size) / 2.0)
    return weights[start : start + size].contiguous()
