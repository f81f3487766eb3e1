"""Locally scaled digits: images of "000" to "999", every digit resized on its own (paper, section 5.2).

A stored data set (`generate_digits`) and freshly drawn batches (`DigitSampler`) take the same path: uniform
random numbers -> `layout` -> `render`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lse_core.errors import DataError
from lse_data.config import DIGITS_PER_IMAGE, SPLITS, DigitsConfig
from lse_data.dataset import DigitsDataset, to_float
from lse_data.glyphs import Glyphs, load_glyphs
from lse_data.layout import DRAWS, Picker, boxes, factors, to_unit
from lse_data.render import quantize, render

__all__ = ["DigitSampler", "generate_digits"]

# pixels drawn at a time: on the CPU what fits the caches, which is twice as fast as large batches
CPU_CHUNK = 16 * 96**2
DEVICE_CHUNK = 512 * 96**2


class DigitSampler:
    """Draws new random images forever: the training augmentation that re-draws factors, places and glyphs.

    Args:
        config: what to draw; `count` plays no part, `seed` is that of the sampler's own generator.
        device: where images are drawn and returned.
        glyphs: glyphs to use; None loads those that `config` names.

    Raises:
        DataError: the glyphs cannot be loaded.
    """

    def __init__(
        self, config: DigitsConfig, device: torch.device | str = "cpu", glyphs: Glyphs | None = None
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        if glyphs is None:
            glyphs = load_glyphs(config.source, config.split, config.split_seed)
        self.glyphs = glyphs
        # float64 makes the bytes the same for every batch size; Apple's devices have none
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._ink = self.glyphs.images.to(dtype).to(self.device)
        self._pick = Picker(self.glyphs.labels, config)
        self._generator = torch.Generator().manual_seed(config.seed)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw `n` new bases.

        Args:
            n: number of bases, at least 1.
            generator: source of randomness, on the CPU; None is the sampler's own, which goes on from call
                to call.

        Returns:
            float32 (n * variants, 1, R, R) in [0, 1] and int64 (n * variants,), on the sampler's device;
            the variants of one base are neighbours.
        """
        if n < 1:
            raise DataError(f"a batch needs at least 1 image, not {n}")
        generator = self._generator if generator is None else generator
        base = torch.rand(n, DRAWS, generator=generator, dtype=torch.float64)
        size = (n, self.config.variants, DIGITS_PER_IMAGE)
        scale = torch.rand(size, generator=generator, dtype=torch.float64)
        drawn = self.draw(base, scale)
        return to_float(drawn["images"]), drawn["labels"].to(self.device)

    def draw(
        self, base: Tensor, scale: Tensor, progress: Callable[[int], None] | None = None
    ) -> dict[str, Tensor]:
        """Make images from given uniform numbers; image i depends on the numbers of its base alone.

        Args:
            base: float64 (n, DRAWS) in [0, 1), what the variants of a base share.
            scale: float64 (n, variants, 3) in [0, 1), the place of each factor in its range.
            progress: called with the number of images just finished.

        Returns:
            The tensors of `DigitsDataset` by name; images on the sampler's device, the rest on the CPU.
        """
        config, variants = self.config, self.config.variants
        factor = factors(scale, config)
        if config.reference:
            factor[:, 0] = 1.0
        factor = factor.flatten(0, 1)
        groups = torch.arange(len(base)).repeat_interleave(variants)
        bases = self._pick(base)
        shared = type(bases)(*(part.repeat_interleave(variants, 0) for part in bases))
        edges = boxes(shared, factor, config)
        return {
            "images": self._paint(shared.glyphs, edges, progress),
            "labels": shared.labels,
            "scales": factor,
            "boxes": to_unit(edges, config.resolution).float(),
            "direction": shared.direction,
            "glyphs": self.glyphs.index[shared.glyphs],
            "groups": groups,
        }

    def _paint(self, pick: Tensor, edges: Tensor, progress: Callable[[int], None] | None) -> Tensor:
        """Draw uint8 (N, 1, R, R) from glyph positions (N, 3) and boxes (N, 3, 4) in pixel edges."""
        n, r = len(pick), self.config.resolution
        images = torch.empty((n, 1, r, r), dtype=torch.uint8, device=self.device)
        edges, pick = edges.to(self._ink.dtype).to(self.device), pick.to(self.device)
        chunk = max(1, (CPU_CHUNK if self.device.type == "cpu" else DEVICE_CHUNK) // r**2)
        for start in range(0, n, chunk):
            part = slice(start, min(start + chunk, n))
            drawn = render(self._ink[pick[part]], edges[part], r, self.config.antialias)
            images[part, 0] = quantize(drawn)
            if progress is not None:
                progress(part.stop - part.start)
        return images


def generate_digits(
    config: DigitsConfig, glyphs: Glyphs | None = None, progress: Callable[[int], None] | None = None
) -> DigitsDataset:
    """Generate the data set that `config` describes, on the CPU.

    Equal settings give equal bytes, whatever the global random state. Image i of base b does not change when
    `count` grows, and variant v does not change when `variants` grows.

    Args:
        config: the settings.
        glyphs: glyphs to use; None loads those that `config` names.
        progress: called with the number of images just finished.

    Raises:
        DataError: the glyphs cannot be loaded.
    """
    base = _uniform(config, 0, DRAWS)
    # a stream of its own for every variant, so that more variants leave the first ones as they are
    scale = torch.stack([_uniform(config, 1 + v, DIGITS_PER_IMAGE) for v in range(config.variants)], dim=1)
    return DigitsDataset(**DigitSampler(config, glyphs=glyphs).draw(base, scale, progress), config=config)


def _uniform(config: DigitsConfig, stream: int, width: int) -> Tensor:
    """Give float64 (count, width) in [0, 1), filled row by row: a larger count only appends rows."""
    rng = np.random.default_rng([config.seed, SPLITS.index(config.split), stream])
    return torch.from_numpy(rng.random((config.count, width)))
