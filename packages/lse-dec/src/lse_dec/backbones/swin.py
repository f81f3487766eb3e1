"""timm's Swin (v1, v2): windowed attention on channels-last maps."""

from __future__ import annotations

from typing import Any

from torch import nn

from lse_core.layouts import NCHW, NHWC
from lse_dec.backbones.base import IMAGE, Stage, first_convolution, is_a, preceding_channels

__all__ = ["Swin"]


class Swin:
    """`layers.0` to `layers.3` are the stages; F_k is the map before the stage merges its patches."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's SwinTransformer or SwinTransformerV2."""
        home = "timm.models.swin_transformer"
        return is_a(model, f"{home}.SwinTransformer", f"{home}_v2.SwinTransformerV2")

    def image(self, model: Any) -> Stage:
        """The image; what the model gives, if dense, is a channels-last map."""
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW(), NHWC())

    def stages(self, model: Any) -> list[Stage]:
        """The layers."""
        return [
            Stage(f"layers.{i}", channels, NHWC(), NHWC())
            for i, channels in enumerate(preceding_channels(model))
        ]
