"""timm's VisionTransformer: ViT, DeiT (plain and distilled), DINOv2 and others of that class."""

from __future__ import annotations

from torch import nn

from lse_dec.backbones.base import is_a
from lse_dec.backbones.tokens import TokenStages

__all__ = ["ViT"]


class ViT(TokenStages):
    """Blocks on tokens; class, distillation and register tokens pass untouched."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's VisionTransformer or a subclass."""
        return is_a(model, "timm.models.vision_transformer.VisionTransformer")
