"""timm's Pyramid Vision Transformer v2."""

from __future__ import annotations

from typing import Any

from torch import nn

from lse_core.layouts import NCHW, NHWC
from lse_dec.backbones.base import IMAGE, Stage, first_convolution, is_a, preceding_channels

__all__ = ["PVT"]


class PVT:
    """`stages.0` to `stages.3` are the stages.

    The first takes the patch embedding's channels-last map, the others, which begin with a
    convolution, take channels-first maps; all give channels-first maps.
    """

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's PyramidVisionTransformerV2."""
        return is_a(model, "timm.models.pvt_v2.PyramidVisionTransformerV2")

    def image(self, model: Any) -> Stage:
        """The image, as the patch embedding takes it."""
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW())

    def stages(self, model: Any) -> list[Stage]:
        """The stages."""
        return [
            Stage(f"stages.{i}", channels, NHWC() if i == 0 else NCHW(), NCHW())
            for i, channels in enumerate(preceding_channels(model))
        ]
