"""Layout of a transformer's tokens in models whose grid of patches depends on the size of the image."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lse_core.errors import ShapeError
from lse_core.layouts import Tokens

__all__ = ["VaryingTokens"]


class VaryingTokens:
    """Tokens (B, prefix + h*w, C) whose grid (h, w) follows from the last image that the model saw.

    The map that a convolution of the model gives becomes the patches, so its height and width are the
    grid's. Hierarchical models merge patches two by two, odd sizes padded, which halves the grid: how often
    shows in the number of tokens.

    Args:
        prefix: how many leading tokens have no place in the picture.
        convolution: name of the convolution in the model.
        grid: (rows, columns) of the patches as long as no image was seen, where the model tells.
        level: how often the grid has been halved at this place.
        halvings: how many times more it may have been halved, in what a stage gives.
    """

    channels_last = True

    def __init__(
        self,
        prefix: int,
        convolution: str,
        *,
        grid: tuple[int, int] | None = None,
        level: int = 0,
        halvings: int = 0,
    ) -> None:
        self.prefix, self.convolution = prefix, convolution
        self.level, self.halvings = level, halvings
        self._patches = grid

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) at this place for the last image; None before one was seen."""
        return None if self._patches is None else _halved(self._patches, self.level)

    def watch(self, model: nn.Module) -> RemovableHandle:
        """Learn the grid from what the convolution gives, until the returned handle is removed."""
        return model.get_submodule(self.convolution).register_forward_hook(self._learn)

    def _learn(self, convolution: nn.Module, args: Any, out: Tensor) -> None:
        self._patches = (out.shape[-2], out.shape[-1])

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `lse_core.Tokens`, on the grid of the last image; ShapeError where it does not fit."""
        grid = self.grid
        if grid is None:
            raise ShapeError(
                "the grid of the tokens is unknown until the model has run on an image; run it once"
            )
        for _ in range(self.halvings):
            if x.ndim != 3 or x.shape[1] == self.prefix + grid[0] * grid[1]:
                break
            grid = _halved(grid, 1)
        return Tokens(grid, self.prefix).unpack(x)

    def pack(self, spatial: Tensor, rest: Tensor | None) -> Tensor:
        """Undo `unpack`."""
        return Tokens((spatial.shape[1], spatial.shape[2]), self.prefix).pack(spatial, rest)


def _halved(grid: tuple[int, int], times: int) -> tuple[int, int]:
    for _ in range(times):
        grid = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
    return grid
