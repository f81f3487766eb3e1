"""Where the pixels are in a tensor: images, NHWC maps, and tokens with prefix tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lse_core.errors import ShapeError, unknown_name

__all__ = ["NCHW", "NHWC", "Layout", "Tokens", "as_layout", "layout_of", "patch_grid"]


@runtime_checkable
class Layout(Protocol):
    """Turns a tensor into a spatial map and back.

    `channels_last` tells whether the map is (B, H, W, C) or (B, C, H, W).
    """

    @property
    def channels_last(self) -> bool:
        """Whether `unpack` gives (B, H, W, C) rather than (B, C, H, W)."""
        ...

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split `x` into its spatial map and the rest, such as class tokens (None if there is no rest)."""
        ...

    def pack(self, spatial: Tensor, rest: Tensor | None) -> Tensor:
        """Undo `unpack`."""
        ...


@dataclass(frozen=True)
class NCHW:
    """Images and convolutional maps, (B, C, H, W)."""

    channels_last: bool = False

    def unpack(self, x: Tensor) -> tuple[Tensor, None]:
        """`x` itself; ShapeError unless it has four axes."""
        _rank(x, 4, "an image or NCHW map (batch, channels, height, width)")
        return x, None

    def pack(self, spatial: Tensor, rest: Tensor | None) -> Tensor:
        """The map itself."""
        return spatial


@dataclass(frozen=True)
class NHWC:
    """Channels-last maps, (B, H, W, C), as in Swin."""

    channels_last: bool = True

    def unpack(self, x: Tensor) -> tuple[Tensor, None]:
        """`x` itself; ShapeError unless it has four axes."""
        _rank(x, 4, "an NHWC map (batch, height, width, channels)")
        return x, None

    def pack(self, spatial: Tensor, rest: Tensor | None) -> Tensor:
        """The map itself."""
        return spatial


@dataclass(frozen=True)
class Tokens:
    """Tokens (B, prefix + h*w, C): class and register tokens first, then patches row by row.

    Args:
        grid: (h, w), the patches' rows and columns.
        prefix: how many leading tokens have no place in the picture; they pass untouched.
    """

    grid: tuple[int, int]
    prefix: int = 1
    channels_last: bool = True

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Patches as (B, h, w, C), and the prefix tokens (None if there are none)."""
        _rank(x, 3, "tokens (batch, tokens, channels)")
        h, w = self.grid
        if x.shape[1] != self.prefix + h * w:
            raise ShapeError(
                f"{x.shape[1]} tokens are not {self.prefix} prefix tokens and a {h} x {w} grid of patches"
            )
        patches = x[:, self.prefix :].reshape(x.shape[0], h, w, x.shape[2])
        return patches, x[:, : self.prefix] if self.prefix else None

    def pack(self, spatial: Tensor, rest: Tensor | None) -> Tensor:
        """Patches flattened again, behind their prefix tokens."""
        flat = spatial.flatten(1, 2)
        return flat if rest is None else torch.cat([rest, flat], dim=1)


def _rank(x: Tensor, rank: int, what: str) -> None:
    if x.ndim != rank:
        raise ShapeError(f"expected {what}; got a tensor of shape {tuple(x.shape)}")
    if 0 in x.shape[1:]:
        raise ShapeError(f"an empty map cannot be warped; got a tensor of shape {tuple(x.shape)}")


_NAMED: dict[str, Layout] = {"nchw": NCHW(), "nhwc": NHWC()}


def as_layout(layout: Layout | str) -> Layout:
    """Return the layout of a name ("nchw", "nhwc"); a layout is returned as it is. Tokens have no name."""
    if not isinstance(layout, str):
        return layout
    if layout not in _NAMED:
        raise unknown_name("layout", layout, _NAMED, "For tokens give lse_core.Tokens(grid, prefix).")
    return _NAMED[layout]


def layout_of(
    x: Tensor, module: nn.Module, model: Any, grid: tuple[int, int] | None, batch: int
) -> tuple[Layout, int] | None:
    """Layout and channels of a tensor, or None if it is not a spatial map.

    Args:
        x: what entered or left `module` when the model ran.
        module: told apart by its convolutions where the shape is ambiguous.
        model: its `output_fmt`, as timm has it, counts next.
        grid: patches a side if the model embeds patches (see `patch_grid`), else None.
        batch: images that the model ran on; at least 2 tell a batch of maps from one of windows.
    """
    if not x.is_floating_point() or not x.ndim or x.shape[0] != batch:
        return None
    # without a known grid nobody can tell which tokens are patches, nor in which order
    if x.ndim == 3 and grid is not None:
        prefix = x.shape[1] - grid[0] * grid[1]
        # more prefix tokens than this are other tokens than prefix ones
        return (Tokens(grid, prefix), x.shape[2]) if 0 <= prefix <= 16 else None
    if x.ndim != 4:
        return None
    _, a, b, c = x.shape
    if _channels_last(a, b, c, module, model):
        return (NHWC(), c) if a > 1 and b > 1 else None
    return (NCHW(), a) if b > 1 and c > 1 else None


def _channels_last(a: int, b: int, c: int, module: nn.Module, model: Any) -> bool:
    if (a == b) != (b == c):  # square maps: the odd one out counts channels
        return a == b
    convolution = next((m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)), None)
    if convolution is None and getattr(model, "output_fmt", "NCHW") == "NHWC":
        return True
    linear = next((m for m in module.modules() if isinstance(m, nn.Linear | nn.LayerNorm)), None)
    return convolution is None and linear is not None and a != c


def patch_grid(model: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of the patches, if a module of the model has them as attributes."""
    for module in model.modules():
        grid: Any = getattr(module, "grid_size", None)
        if isinstance(grid, tuple) and len(grid) == 2 and all(isinstance(n, int) for n in grid):
            return grid
    return None
