"""From a picture to a model's input: the description that goes with a model, and the code that applies it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from lse_core.errors import LSEError
from lse_core.settings import Settings, validated

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor, nn

__all__ = ["INTERPOLATIONS", "Preprocess", "channels_and_size", "preprocess_of"]

INTERPOLATIONS = ("bicubic", "bilinear")

Side = Annotated[int, Field(ge=1, le=65_536)]
MOST = 64_000_000  # pixels that a picture may be resized to before the crop


class Preprocess(Settings):
    """How the pictures of a model are prepared: timm's evaluation transform, in timm's terms.

    A picture is resized with anti-aliasing, cropped about its centre, divided by 255 and normalised by
    channel: (v / 255 - mean) / std.

    Attributes:
        channels: of the model's input, 3 for RGB and 1 for grey pictures.
        size: (height, width) of the model's input in pixels; None for a model that takes any, as most
            segmentors do: then pictures keep their size.
        crop_mode: "center" keeps the picture's proportions: the shorter side is resized to the size over
            `crop_pct`, and the middle is cut out. "squash" resizes both sides to the size over `crop_pct`,
            whatever the proportions were, and cuts out the middle.
        crop_pct: share of the resized picture's side that the crop keeps, from 0.01 to 1.
        interpolation: "bicubic" or "bilinear".
        mean: by channel, of values in [0, 1].
        std: by channel, of values in [0, 1], at least 1e-6.
        colours: order of three channels, "rgb", or "bgr" as OpenCV reads files.
    """

    channels: Annotated[int, Field(ge=1)]
    size: tuple[Side, Side] | None
    crop_mode: Literal["center", "squash"] = "center"
    crop_pct: Annotated[float, Field(ge=0.01, le=1)] = 1.0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(ge=1e-6)], ...]
    colours: Literal["rgb", "bgr"] = "rgb"

    @model_validator(mode="after")
    def _by_channel(self) -> Preprocess:
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count != self.channels:
                raise ValueError(f"{name} has {count} numbers for {self.channels} channels")
        return self

    @classmethod
    def from_timm(
        cls, config: Mapping[str, Any], channels: int | None = None, size: tuple[int, int] | None = None
    ) -> Preprocess:
        """What timm's data config says.

        Args:
            config: a model's `pretrained_cfg`, or what `timm.data.resolve_model_data_config` returns; an
                entry that is absent has timm's default.
            channels: the model's own number, where it was made for another than the config's; then mean and
                std, which the config does not have for it, are 0.5.
            size: (height, width) of the model's input, where it is another than the config's.

        Raises:
            SettingsError: an interpolation or a crop mode that is not known here.
        """
        own = tuple(config.get("input_size") or (3, 224, 224))
        mean = tuple(config.get("mean") or (0.485, 0.456, 0.406))
        std = tuple(config.get("std") or (0.229, 0.224, 0.225))
        channels = channels or own[0]
        if len(mean) != channels or len(std) != channels:
            mean = std = (0.5,) * channels
        values = {
            "channels": channels,
            "size": size or own[1:],
            "crop_mode": config.get("crop_mode") or "center",
            "crop_pct": min(1.0, config.get("crop_pct") or 0.875),
            "interpolation": config.get("interpolation") or "bicubic",
            "mean": mean,
            "std": std,
        }
        return validated(cls, values, "the model's data config")

    @classmethod
    def from_json(cls, text: str, where: str = "") -> Preprocess:
        """What `to_json` wrote; `where` names its place in errors.

        Raises:
            SettingsError, UnknownNameError: no such description.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LSEError(f"{where}: the preprocessing is not valid JSON") from error
        return validated(cls, values, where)

    def to_json(self) -> str:
        """As one line of text, for metadata of files."""
        return json.dumps(self.plain())

    def resized(self, source: tuple[int, int]) -> tuple[int, int]:
        """(height, width) before the crop, at least `size`, of a picture of (height, width) `source`."""
        if self.size is None:
            return source
        h, w = self.size
        wanted = (math.floor(h / self.crop_pct), math.floor(w / self.crop_pct))
        if self.crop_mode == "squash":
            return wanted
        if wanted[0] == wanted[1]:  # the shorter side to the wanted one, the longer in proportion
            short, long = sorted(source)
            other = int(wanted[0] * long / short)
            found = (wanted[0], other) if source[0] <= source[1] else (other, wanted[0])
        else:
            ratio = max(wanted[0] / source[0], wanted[1] / source[1])
            found = (round(source[0] * ratio), round(source[1] * ratio))
        return max(found[0], h), max(found[1], w)

    def crop(self, resized: tuple[int, int]) -> tuple[int, int]:
        """(top, left) of the crop in a resized picture of (height, width) `resized`."""
        h, w = self.size or resized
        return round((resized[0] - h) / 2.0), round((resized[1] - w) / 2.0)

    def pixels(self, picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The picture resized and cropped, uint8 (height, width, channels), in the order of `colours`.

        Args:
            picture: of Pillow's mode "L" for one channel or "RGB" for three, as `read_picture` gives it.

        Raises:
            PictureError: so long and thin a picture that resizing its short side would exhaust the memory.
            LSEError: a picture of another mode.
        """
        import numpy as np
        from PIL import Image

        from lse_core.pictures import PictureError

        mode = "L" if self.channels == 1 else "RGB"
        if picture.mode != mode:
            raise LSEError(f"the model takes pictures of Pillow's mode {mode!r}; got {picture.mode!r}")
        height, width = self.resized((picture.height, picture.width))
        if height * width > MOST:
            raise PictureError(
                f"a picture of {picture.width} x {picture.height} pixels is so long and thin that it would "
                f"become {width} x {height} before the crop: cut it to the part that matters first"
            )
        top, left = self.crop((height, width))
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling[self.interpolation.upper()])
        h, w = self.size or (height, width)
        array = np.array(picture.crop((left, top, left + w, top + h)), dtype=np.uint8).reshape(h, w, -1)
        return np.ascontiguousarray(array[..., ::-1]) if self.colours == "bgr" else array

    def read(self, path: str | Path) -> Tensor:
        """Read one picture and prepare it for the model: float32 (channels, height, width).

        Raises:
            PictureError: see `read_picture`.
        """
        import torch

        from lse_core.pictures import PictureError, read_picture

        picture = read_picture(path, self.channels)
        try:
            pixels = torch.from_numpy(self.pixels(picture))
        except PictureError as error:
            raise PictureError(f"{path}: {error}") from error
        return self.normalise(pixels.permute(2, 0, 1)[None].float() / 255)[0]

    def batch(self, paths: Iterable[str | Path]) -> Tensor:
        """Pictures as one batch, float32 (n, channels, height, width).

        Raises:
            PictureError: see `read_picture`.
            LSEError: no pictures, or the model takes any size and the pictures differ in theirs.
        """
        import torch

        images = [self.read(path) for path in paths]
        if not images:
            raise LSEError("no pictures were given; name at least one")
        if len({image.shape for image in images}) > 1:
            raise LSEError("the pictures differ in size, and the model takes any: give one size for all")
        return torch.stack(images)

    def normalise(self, images: Tensor) -> Tensor:
        """(images - mean) / std for images (B, C, H, W) in [0, 1] of a floating dtype."""
        mean, std = (images.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std

    def denormalise(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) back to [0, 1], in the order RGB, cut to that range."""
        mean, std = (images.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        found = (images * std + mean).clamp(0, 1)
        return found.flip(1) if self.colours == "bgr" else found

    def sample(self, count: int = 2) -> Tensor:
        """Smooth generated images for use without pictures: normalised (count, C, H, W), always the same.

        Raises:
            LSEError: the model takes any size.
        """
        import torch

        if self.size is None:
            raise LSEError("the model does not say what image size it takes, since it takes any: give one")

        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(count, self.channels, 8, 8, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, size=self.size, mode="bilinear", align_corners=True)
        return self.normalise(fine)


def preprocess_of(model: nn.Module, size: tuple[int, int] | None = None) -> Preprocess | None:
    """Return how the pictures of `model` are prepared, or None if nothing says so.

    What the model's card says (see `lse_core.card`), else timm's data config, for the channels and the size
    that the model was really made for.

    Args:
        model: any model, adapted or not.
        size: (height, width) in the place of the model's own.
    """
    known = getattr(getattr(model, "lse_card", None), "preprocess", None)
    if isinstance(known, Preprocess):
        return known if size is None else validated(Preprocess, {**known.plain(), "size": size})
    config = getattr(model, "pretrained_cfg", None)
    if not config:
        return None
    channels, own = channels_and_size(model)
    return Preprocess.from_timm(config, channels, size or own)


def channels_and_size(model: nn.Module) -> tuple[int | None, tuple[int, int] | None]:
    """Channels and (height, width) of the images that a model was made for; None for what it does not say."""
    from torch import nn

    site = getattr(getattr(model, "sites", {}).get("image", None), "where", None)
    embed = getattr(model, "patch_embed", None)
    first = getattr(embed, "proj", None) or next(
        (m for m in model.modules() if isinstance(m, nn.Conv2d)), None
    )
    channels = getattr(site, "channels", None) or getattr(first, "in_channels", None)
    channels = channels or getattr(model, "in_chans", None)  # of a model that runs elsewhere
    own = getattr(site, "size", None) or getattr(embed, "img_size", None) or getattr(model, "img_size", None)
    if isinstance(own, int):
        own = (own, own)
    return channels, (int(own[0]), int(own[1])) if own is not None and len(own) == 2 else None
