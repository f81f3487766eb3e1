"""timm's ResNet and its kin of the same class (ResNeXt, SE-ResNet, ECA-ResNet, ...)."""

from __future__ import annotations

from typing import Any

from torch import nn

from lse_core.layouts import NCHW
from lse_dec.backbones.base import IMAGE, Stage, first_convolution, is_a

__all__ = ["ResNet"]


class ResNet:
    """`layer1` to `layer4` are the stages; F_k is what enters the layer."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's ResNet or a subclass."""
        return is_a(model, "timm.models.resnet.ResNet")

    def image(self, model: Any) -> Stage:
        """The image, as the stem's first convolution takes it."""
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW())

    def stages(self, model: Any) -> list[Stage]:
        """The four layers; the metadata begin with the stem, so each entry is what enters the next layer."""
        widths = [info["num_chs"] for info in model.feature_info]
        return [Stage(f"layer{k + 1}", widths[k], NCHW()) for k in range(4)]
