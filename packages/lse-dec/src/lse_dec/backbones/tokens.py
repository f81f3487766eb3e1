"""Stages of transformers whose blocks take tokens: prefix tokens, then the grid of patches."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lse_core.errors import ShapeError
from lse_core.layouts import NCHW, Layout, Tokens
from lse_dec.backbones.base import IMAGE, Stage, first_convolution

__all__ = ["TokenStages", "VaryingTokens"]


class VaryingTokens:
    """Tokens whose grid is that of the image at hand (timm's `dynamic_img_size`).

    Args:
        prefix: how many leading tokens have no place in the picture.
    """

    channels_last = True

    def __init__(self, prefix: int) -> None:
        self.prefix = prefix
        self.grid: tuple[int, int] | None = None

    def watch(self, model: Any) -> RemovableHandle:
        """Learn the grid from what enters the patch embedding."""
        return model.patch_embed.register_forward_pre_hook(self._learn)

    def _learn(self, embedding: Any, args: tuple[Tensor, ...]) -> None:
        # timm's own rule, which knows whether the embedding pads
        self.grid = embedding.dynamic_feat_size(tuple(args[0].shape[-2:]))

    def _fixed(self) -> Tokens:
        if self.grid is None:
            raise ShapeError("the token grid is unknown before the model has seen an image")
        return Tokens(self.grid, self.prefix)

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `lse_core.Tokens`, on the grid of the last image."""
        return self._fixed().unpack(x)

    def pack(self, spatial: Tensor, rest: Tensor | None) -> Tensor:
        """Undo `unpack`."""
        return self._fixed().pack(spatial, rest)


class TokenStages:
    """Every block of `model.blocks` is a stage; families say which models are theirs."""

    def image(self, model: Any) -> Stage:
        """The image, as the patch embedding takes it; what the model gives, if dense, are its tokens."""
        layout, _, watch = _layout(model)
        size = None if watch else model.patch_embed.img_size
        channels = first_convolution(model).in_channels
        return Stage(IMAGE, channels, NCHW(), layout, size and tuple(size), watch)

    def stages(self, model: Any) -> list[Stage]:
        """`blocks.0` to the last."""
        layout, grid, watch = _layout(model)
        return [
            Stage(f"blocks.{i}", model.embed_dim, layout, layout, grid, watch)
            for i in range(len(model.blocks))
        ]


def _layout(model: Any) -> tuple[Layout, tuple[int, int] | None, Any]:
    prefix = int(getattr(model, "num_prefix_tokens", 1))
    grid = model.patch_embed.grid_size
    if grid is None or getattr(model, "dynamic_img_size", False):
        varying = VaryingTokens(prefix)
        return varying, None, varying.watch
    return Tokens((grid[0], grid[1]), prefix), (grid[0], grid[1]), None
