"""timm's VisionTransformer: ViT, DeiT, DINOv2 and others of that class."""

from __future__ import annotations

from torch import nn

from lse_core.errors import ShapeError
from lse_core.layouts import NCHW, Tokens
from lse_dec.backbones.base import IMAGE, Stage

__all__ = ["ViT"]


class ViT:
    """Every transformer block is a stage on tokens: prefix tokens, then the grid of patches."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's VisionTransformer or a subclass."""
        from timm.models.vision_transformer import VisionTransformer

        return isinstance(model, VisionTransformer)

    def image(self, model: nn.Module) -> Stage:
        """The image, as the patch embedding takes it."""
        size = model.patch_embed.img_size
        return Stage(IMAGE, model.patch_embed.proj.in_channels, NCHW(), NCHW(), size and tuple(size))

    def stages(self, model: nn.Module) -> list[Stage]:
        """`blocks.0` to the last; ShapeError for a model whose token grid varies."""
        grid = model.patch_embed.grid_size
        if grid is None or getattr(model, "dynamic_img_size", False):
            raise ShapeError(
                f"{type(model).__name__} with a varying image size has no fixed token grid; "
                "create it with a fixed img_size, or canonicalize at 'image'"
            )
        layout = Tokens((grid[0], grid[1]), prefix=model.num_prefix_tokens)
        return [
            Stage(f"blocks.{i}", model.embed_dim, layout, layout, layout.grid)
            for i in range(len(model.blocks))
        ]
