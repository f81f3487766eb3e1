"""Locally scaled scenes on disk: a digit on a photograph, resized while the photograph stays as it is.

What the authors made of ImageNet (section 5.3), in small and from what scikit-learn brings along: the same
files by the same names, so whatever reads one reads the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lse_core.atomic import staging
from lse_core.errors import DataError, unknown_name
from lse_core.objects import scale_objects
from lse_core.settings import build
from lse_train.data.config import MOST, SPLITS, whole
from lse_train.data.folder import ImageFolder, build_scaled_folder
from lse_train.data.glyphs import Glyphs, load_glyphs
from lse_train.data.store import check_folder

__all__ = ["SceneConfig", "build_scenes", "write_scenes"]

CHUNK = 32
CENTRE_PLAY = 0.1  # how far an object's centre strays from the middle, as a share of the side


@dataclass(frozen=True)
class SceneConfig:
    """What to draw; equal settings give equal files.

    Args:
        count: pictures, spread evenly over the ten digits; each is written at every factor.
        scales: factors of the digit; the authors have 0.7 to 1.3 in steps of 0.1.
        resolution: side R in pixels.
        size: side of the digit at factor 1, as a share of R.
        seed: of everything that is drawn.
        split: "train", "val" or "test": which glyphs, and which places of the photographs.
        split_seed: of the division of the glyphs; the same for training and test folders.
        source: "sklearn", or the root folder of MNIST.

    Raises:
        DataError: a value out of its range.
    """

    count: int
    scales: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    resolution: int = 64
    size: float = 0.5
    seed: int = 0
    split: str = "train"
    split_seed: int = 0
    source: str = "sklearn"

    def __post_init__(self) -> None:
        for name in ("count", "resolution", "seed", "split_seed"):
            whole(f"scenes: {name}", getattr(self, name), 0, most=MOST.get(name))
        scales = self.scales if isinstance(self.scales, list | tuple) else ()
        if not all(isinstance(n, int | float) for n in (self.size, *scales)):
            raise DataError(f"scenes: size and scales must be numbers; got {self.size!r}, {self.scales!r}")
        if not isinstance(self.source, str):
            raise DataError(f'scenes: source must be "sklearn" or the folder of MNIST, not {self.source!r}')
        if self.count < 10 or self.resolution < 16 or self.seed < 0:
            raise DataError(
                "scenes: count must be at least 10, resolution 16, seed 0; "
                f"got {self.count}, {self.resolution}, {self.seed}"
            )
        if not scales or len(set(self.scales)) != len(self.scales) or min(self.scales) <= 0:
            raise DataError(f"scenes: scales must be different numbers above 0; got {self.scales}")
        if not 0 < self.size * max(self.scales) <= 1 - 2 * CENTRE_PLAY:
            raise DataError(
                f"scenes: an object of size {self.size:g} at factor {max(self.scales):g} does not fit; "
                f"size times factor must stay within {1 - 2 * CENTRE_PLAY:g}"
            )
        if self.split not in SPLITS:
            raise unknown_name("split", self.split, SPLITS)


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
    photographs = _photographs()
    with staging(folder) as partial:
        for start in range(0, config.count, CHUNK):
            numbers = range(start, min(start + CHUNK, config.count))
            _write(config, numbers, glyphs, photographs, partial)
            if progress is not None:
                progress(len(numbers) * len(config.scales))
        folder.mkdir(exist_ok=True)
        for name in sorted(p.name for p in partial.iterdir()):
            shutil.rmtree(folder / name, ignore_errors=True)
            os.replace(partial / name, folder / name)
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
    own = {field.name for field in fields(SceneConfig)}
    mine = {key: value for key, value in settings.items() if key in own and key != "scales"}
    others = {
        key: value for key, value in settings.items() if key not in own or key in ("scales", "resolution")
    }
    if "count" not in mine:
        raise DataError("scenes: count is missing: say how many pictures to draw")
    # every factor is written: which are read is the reader's business
    config: SceneConfig = build(SceneConfig, **mine)
    glyphs = load_glyphs(config.source, config.split, config.split_seed)
    text = json.dumps([1, glyphs.fingerprint(), asdict(config)], sort_keys=True)
    root = Path(cache_dir or os.environ.get("LSE_CACHE") or Path.home() / ".cache" / "lse")
    folder = root / "scenes" / hashlib.sha256(text.encode()).hexdigest()[:24]
    if not folder.exists():
        with staging(folder) as partial:
            write_scenes(config, partial)
            with suppress(OSError):  # another process was first: its files are the same
                os.replace(partial, folder)
    return build_scaled_folder(str(folder), **others)


def _write(
    config: SceneConfig, numbers: Sequence[int], glyphs: Glyphs, photographs: Sequence[Tensor], folder: Path
) -> None:
    drawn = [_scene(config, number, glyphs, photographs) for number in numbers]
    background = torch.stack([scene[0] for scene in drawn])
    alpha = torch.stack([scene[1] for scene in drawn])
    colour = torch.stack([scene[2] for scene in drawn])
    image = background * (1 - alpha) + colour[:, :, None, None] * alpha
    for factor in config.scales:
        scaled = scale_objects(image, alpha, factor, background=background).image
        pixels = (scaled.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for number, picture in zip(numbers, pixels, strict=True):
            place = folder / str(number % 10)
            place.mkdir(exist_ok=True)
            Image.fromarray(picture).save(place / f"{number:06d}_scale_{factor:g}.JPEG", quality=92)


def _scene(
    config: SceneConfig, number: int, glyphs: Glyphs, photographs: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Background (3, R, R), the digit's mask (1, R, R) and its colour (3,); a random stream for each."""
    rng = np.random.default_rng([config.seed, SPLITS.index(config.split), number])
    r = config.resolution
    photograph = photographs[int(rng.integers(len(photographs)))]
    side = int(rng.integers(min(r, 96), min(photograph.shape[1:]) + 1))
    top, left = (int(rng.integers(n - side + 1)) for n in photograph.shape[1:])
    crop = photograph[None, :, top : top + side, left : left + side]
    background = F.interpolate(crop, (r, r), mode="bilinear", antialias=True, align_corners=False)[0]

    mine = torch.nonzero(glyphs.labels == number % 10)[:, 0]
    glyph = glyphs.images[mine[rng.integers(len(mine))]]
    pixels = round(config.size * r)
    ink = F.interpolate(glyph[None, None], (pixels, pixels), mode="bilinear", align_corners=False)
    ink = ink[0, 0].clamp(0, 1)
    play = CENTRE_PLAY * r
    y, x = ((r - pixels) / 2 + rng.uniform(-play, play, 2)).round().astype(int)
    alpha = torch.zeros(1, r, r)
    alpha[0, y : y + pixels, x : x + pixels] = ink
    # a colour that is seen: away from the background's mean
    mean = background.mean((1, 2))
    colour = torch.from_numpy(rng.uniform(0, 1, 3)).float()
    away = (colour - mean).norm()
    colour = (mean + (colour - mean) * math.sqrt(3) / 2 / away.clamp_min(1e-3)).clamp(0, 1)
    return background, alpha, colour


def _photographs() -> list[Tensor]:
    """The two photographs that scikit-learn brings along, float (3, H, W) in [0, 1]."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise DataError("scenes are drawn on scikit-learn's photographs: pip install scikit-learn") from error
    return [torch.from_numpy(np.array(p)).permute(2, 0, 1).float() / 255 for p in load_sample_images().images]
