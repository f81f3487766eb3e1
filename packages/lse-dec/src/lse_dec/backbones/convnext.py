"""timm's ConvNeXt (v1, v2)."""

from __future__ import annotations

from typing import Any

from torch import nn

from lse_core.layouts import NCHW
from lse_dec.backbones.base import IMAGE, Stage, first_convolution, is_a, preceding_channels

__all__ = ["ConvNeXt"]


class ConvNeXt:
    """`stages.0` to `stages.3` are the stages; F_k is the map before the stage downsamples."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's ConvNeXt."""
        return is_a(model, "timm.models.convnext.ConvNeXt")

    def image(self, model: Any) -> Stage:
        """The image, as the stem takes it."""
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW())

    def stages(self, model: Any) -> list[Stage]:
        """The stages."""
        return [
            Stage(f"stages.{i}", channels, NCHW()) for i, channels in enumerate(preceding_channels(model))
        ]
