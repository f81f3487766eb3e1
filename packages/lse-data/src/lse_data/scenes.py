"""Locally scaled scenes on disk: a digit on a photograph, resized while the photograph stays as it is.

What the authors made of ImageNet (section 5.3), in small and from what scikit-learn brings along: the same
files by the same names, so whatever reads one reads the other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from lse_core.atomic import staging
from lse_core.objects import scale_objects
from lse_data.config import SPLITS, DataSettings, Factors, Images, Positive, Resolution, Source, Split
from lse_data.fields import Seed
from lse_data.files import cache_place, check_folder, move_in
from lse_data.folder import ImageFolder
from lse_data.glyphs import Glyphs, load_glyphs
from lse_data.objects.photographs import photographs

__all__ = ["SceneConfig", "build_scenes", "write_scenes"]

CHUNK = 32
CENTRE_PLAY = 0.1  # how far an object's centre strays from the middle, as a share of the side


class SceneConfig(DataSettings):
    """What to draw; equal settings give equal files.

    Attributes:
        count: pictures, spread evenly over the ten digits; each is written at every factor.
        scales: factors of the digit; the authors have 0.7 to 1.3 in steps of 0.1.
        resolution: side R in pixels.
        size: side of the digit at factor 1, as a share of R.
        seed: of everything that is drawn.
        split: "train", "val" or "test": which glyphs, and which places of the photographs.
        split_seed: of the division of the glyphs; the same for training and test folders.
        source: "sklearn", or the root folder of MNIST.
    """

    count: Annotated[Images, Field(ge=10)]
    scales: Factors = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    resolution: Annotated[Resolution, Field(ge=16)] = 64
    size: Positive = 0.5
    seed: Seed = 0
    split: Split = "train"
    split_seed: Seed = 0
    source: Source = "sklearn"

    @model_validator(mode="after")
    def _fits(self) -> SceneConfig:
        if self.size * max(self.scales) > 1 - 2 * CENTRE_PLAY:
            raise ValueError(
                f"an object of size {self.size:g} at factor {max(self.scales):g} does not fit; "
                f"size times factor must stay within {1 - 2 * CENTRE_PLAY:g}"
            )
        return self


def write_scenes(
    config: SceneConfig,
    folder: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write `DIGIT/NUMBER_scale_FACTOR.JPEG` for every picture and factor.

    Args:
        config: what to draw.
        folder: where; made if absent. The class folders appear when all files are written.
        force: allow a folder that is not empty; its class folders are replaced.
        progress: called with the number of files just written.

    Raises:
        OutputError: the folder is not empty and `force` is off, or it cannot be written.
        DataError: the glyphs cannot be loaded.
    """
    folder = Path(folder)
    check_folder(folder, force)
    glyphs = load_glyphs(config.source, config.split, config.split_seed)
    with staging(folder) as partial:
        for start in range(0, config.count, CHUNK):
            numbers = range(start, min(start + CHUNK, config.count))
            _write(config, numbers, glyphs, partial)
            if progress is not None:
                progress(len(numbers) * len(config.scales))
        move_in(partial, folder)
    return folder


def build_scenes(cache_dir: str | os.PathLike[str] | None = None, **settings: Any) -> ImageFolder:
    """The data set "scenes" by plain settings: written once, then read as any locally scaled folder.

    Args:
        cache_dir: folder of the cache; None is the environment variable LSE_CACHE, else ~/.cache/lse.
        settings: fields of `SceneConfig`, and those of `ImageFolder` but for its root.

    Raises:
        UnknownNameError: a setting that does not exist.
        DataError: a setting out of its range.
        OutputError: the cache cannot be written.
    """
    # every factor is written: which are read is the reader's business
    drawn = set(SceneConfig.model_fields) - {"scales"}
    config = SceneConfig(**{name: value for name, value in settings.items() if name in drawn})
    read = {name: value for name, value in settings.items() if name not in drawn - {"resolution"}}
    glyphs = load_glyphs(config.source, config.split, config.split_seed)
    folder = cache_place("scenes", cache_dir, 1, glyphs.fingerprint(), config.plain())
    if not folder.exists():
        with staging(folder) as partial:
            write_scenes(config, partial)
            with suppress(OSError):  # another process was first: its files are the same
                os.replace(partial, folder)
    return ImageFolder(folder, **read)


def _write(config: SceneConfig, numbers: Sequence[int], glyphs: Glyphs, folder: Path) -> None:
    drawn = [_scene(config, number, glyphs) for number in numbers]
    background, alpha, colour = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    image = background * (1 - alpha) + colour[:, :, None, None] * alpha
    for factor in config.scales:
        scaled = scale_objects(image, alpha, factor, background=background).image
        pixels = (scaled.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for number, picture in zip(numbers, pixels, strict=True):
            place = folder / str(number % 10)
            place.mkdir(exist_ok=True)
            Image.fromarray(picture).save(place / f"{number:06d}_scale_{factor:g}.JPEG", quality=92)


def _scene(config: SceneConfig, number: int, glyphs: Glyphs) -> tuple[Tensor, Tensor, Tensor]:
    """Background (3, R, R), the digit's mask (1, R, R) and its colour (3,); a random stream for each."""
    rng = np.random.default_rng([config.seed, SPLITS.index(config.split), number])
    r = config.resolution
    known = photographs()
    photograph = torch.from_numpy(known[int(rng.integers(len(known)))]).permute(2, 0, 1)
    side = int(rng.integers(min(r, 96), min(photograph.shape[1:]) + 1))
    top, left = (int(rng.integers(n - side + 1)) for n in photograph.shape[1:])
    crop = photograph[None, :, top : top + side, left : left + side].float() / 255
    background = F.interpolate(crop, (r, r), mode="bilinear", antialias=True, align_corners=False)[0]

    pixels = round(config.size * r)
    ink = F.interpolate(
        glyphs.one_of(number % 10, rng)[None, None], (pixels, pixels), mode="bilinear", align_corners=False
    )
    play = CENTRE_PLAY * r
    y, x = ((r - pixels) / 2 + rng.uniform(-play, play, 2)).round().astype(int)
    alpha = torch.zeros(1, r, r)
    alpha[0, y : y + pixels, x : x + pixels] = ink[0, 0].clamp(0, 1)
    # a colour that is seen: away from the background's mean
    mean = background.mean((1, 2))
    colour = torch.from_numpy(rng.uniform(0, 1, 3)).float()
    away = (colour - mean).norm()
    colour = (mean + (colour - mean) * math.sqrt(3) / 2 / away.clamp_min(1e-3)).clamp(0, 1)
    return background, alpha, colour
