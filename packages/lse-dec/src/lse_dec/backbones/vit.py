"""timm's VisionTransformer: ViT, DeiT, DINOv2 and others of that class."""

from __future__ import annotations

from typing import Any

from torch import nn

from lse_core.errors import ShapeError
from lse_core.layouts import NCHW, Tokens
from lse_dec.backbones.base import IMAGE, Stage, first_convolution

__all__ = ["ViT"]


class ViT:
    """Every transformer block is a stage on tokens: prefix tokens, then the grid of patches."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's VisionTransformer or a subclass."""
        from timm.models.vision_transformer import VisionTransformer

        return isinstance(model, VisionTransformer)

    def image(self, model: Any) -> Stage:
        """The image, as the patch embedding takes it; what the model gives, if dense, are its tokens."""
        size = model.patch_embed.img_size
        return Stage(
            IMAGE, first_convolution(model).in_channels, NCHW(), _tokens(model), size and tuple(size)
        )

    def stages(self, model: Any) -> list[Stage]:
        """`blocks.0` to the last."""
        layout = _tokens(model)
        return [
            Stage(f"blocks.{i}", model.embed_dim, layout, layout, layout.grid)
            for i in range(len(model.blocks))
        ]


def _tokens(model: Any) -> Tokens:
    grid = model.patch_embed.grid_size
    if grid is None or getattr(model, "dynamic_img_size", False):
        raise ShapeError(
            f"{type(model).__name__} with a varying image size has no fixed token grid; "
            "create it with a fixed img_size"
        )
    return Tokens((grid[0], grid[1]), prefix=model.num_prefix_tokens)
