"""timm's ResNet and its kin of the same class (ResNeXt, SE-ResNet, ECA-ResNet, ...)."""

from __future__ import annotations

from torch import nn

from lse_core.layouts import NCHW
from lse_dec.backbones.base import IMAGE, Stage

__all__ = ["ResNet"]


class ResNet:
    """`layer1` to `layer4` are the stages; F_k is what enters the layer."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's ResNet or a subclass."""
        from timm.models.resnet import ResNet as TimmResNet

        return isinstance(model, TimmResNet)

    def image(self, model: nn.Module) -> Stage:
        """The image, as the stem's first convolution takes it."""
        first = next(m for m in model.conv1.modules() if isinstance(m, nn.Conv2d))
        return Stage(IMAGE, first.in_channels, NCHW())

    def stages(self, model: nn.Module) -> list[Stage]:
        """The four layers; a layer takes the channels that the one before it gives."""
        widths = [info["num_chs"] for info in model.feature_info]
        return [Stage(f"layer{k + 1}", widths[k], NCHW()) for k in range(4)]
