"""The random warps (Omega of Eq. 23) that augmentation, loss and metric draw, as settings."""

from __future__ import annotations

from typing import Any

import torch

from lse_core.errors import LSEError
from lse_core.plugins import registry
from lse_core.pointwise import PointwiseWarp
from lse_core.separable import SeparableWarp
from lse_core.settings import build

__all__ = ["RandomWarps", "Warp"]

Warp = SeparableWarp | PointwiseWarp


class RandomWarps:
    """Draws random warps of one kind.

    Args:
        warp: name of the kind: "separable", "triangular", "grid" (the paper's coupled grids) or a plugin's.
        settings: of its `random`: for "separable" `segments`, `ratio`, `distribution` and `strength`, for
            "triangular" `columns` and `order` besides, for "grid" `resolution` and `strength`.

    Raises:
        LSEError: no such warp, no such setting, or one out of its range.
    """

    def __init__(self, warp: str = "separable", **settings: Any) -> None:
        self.kind: Any = registry().get("warp", warp)
        self.warp, self.settings = warp, settings
        self.draw(1, 0)  # a wrong setting is told now, not in a worker process

    def draw(
        self,
        batch: int,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        dtype: Any = torch.float32,
    ) -> Warp:
        """A batch of warps, drawn on the CPU so that every device gets the same ones.

        Args:
            batch: how many.
            seed: decides them alone; None goes on with torch's own random numbers.
            device: where they are needed.
            dtype: of their coordinates, float32 or float64.
        """
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        made = build(self.kind.random, batch, generator=generator, dtype=dtype, **self.settings)
        if not isinstance(made, SeparableWarp | PointwiseWarp):
            raise LSEError(f"warp {self.warp!r} gives a {type(made).__name__}, which cannot warp images")
        return made.to(device)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"warp={self.warp!r}{options}"
