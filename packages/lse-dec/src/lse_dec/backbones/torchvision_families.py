"""torchvision's transformers and ConvNeXt; its ResNets are `ResNet`'s. Found by name, nothing is imported."""

from __future__ import annotations

from typing import Any, ClassVar

from lse_core.layouts import NCHW, NHWC, Layout, Tokens
from lse_dec.backbones.base import IMAGE, Family, Stage, first_convolution

__all__ = ["TorchvisionConvNeXt", "TorchvisionSwin", "TorchvisionViT"]


class TorchvisionViT(Family):
    """VisionTransformer: `encoder.layers.encoder_layer_0` to the last; the class token passes untouched."""

    classes = ("torchvision.models.vision_transformer.VisionTransformer",)

    def image(self, model: Any) -> Stage:
        """The image, of one size only."""
        size = (model.image_size, model.image_size)
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW(), size=size)

    def stages(self, model: Any) -> list[Stage]:
        """The encoder's layers, on a class token and a square of patches."""
        side = model.image_size // model.patch_size
        layout = Tokens((side, side), 1)
        return [
            Stage(f"encoder.layers.{name}", model.hidden_dim, layout, layout, layout.grid)
            for name, _ in model.encoder.layers.named_children()
        ]


class _Features(Family):
    """A row of modules `features`: a stem, then blocks and what makes the map smaller, in turns.

    All but the stem are stages: before `features.1` lies the stem's map, before `features.2` what is to be
    merged, and so on.
    """

    layout: ClassVar[Layout]

    def stages(self, model: Any) -> list[Stage]:
        """`features.1` to the last."""
        return [
            Stage(f"features.{i}", self.channels(model.features[i]), self.layout, self.layout)
            for i in range(1, len(model.features))
        ]

    def channels(self, module: Any) -> int:
        """Channels of what enters one of the modules."""
        raise NotImplementedError


class TorchvisionSwin(_Features):
    """SwinTransformer (v1, v2): `features.1` to `features.7`, channels-last maps."""

    classes = ("torchvision.models.swin_transformer.SwinTransformer",)
    layout = NHWC()

    def channels(self, module: Any) -> int:
        """A merging says it; a row of blocks begins with attention, which keeps it."""
        return int(module.dim if hasattr(module, "dim") else module[0].attn.proj.out_features)


class TorchvisionConvNeXt(_Features):
    """ConvNeXt: `features.1` to `features.7`, channels-first maps."""

    classes = ("torchvision.models.convnext.ConvNeXt",)
    layout = NCHW()

    def channels(self, module: Any) -> int:
        """The first convolution, depthwise or the one that makes the map smaller, takes them as they come."""
        return first_convolution(module).in_channels
