"""A small network on tokens, known to timm by its name, and the backbone that says where its stages are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from lse_core import NCHW, Tokens
from lse_dec.backbones import IMAGE, Stage

REGISTERS = 2


class Mixer(nn.Module):
    """Every token looks at all others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.query, self.value = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, gain: float = 1.0) -> Tensor:
        """(B, n, C) to (B, n, C)."""
        x = self.norm(tokens)
        shares = (self.query(x) @ x.transpose(1, 2) / x.shape[-1] ** 0.5).softmax(-1)
        return tokens + gain * (shares @ self.value(x))


class PebbleNet(nn.Module):
    """Patches of 4x4 pixels behind two registers, two mixers, and a classifier on the first register."""

    def __init__(
        self, channels: int = 16, num_classes: int = 10, in_chans: int = 3, img_size: int = 32
    ) -> None:
        super().__init__()
        self.img_size = (img_size, img_size)
        self.patches = nn.Conv2d(in_chans, channels, 4, stride=4)
        self.registers = nn.Parameter(torch.randn(1, REGISTERS, channels))
        self.mixers = nn.ModuleList(Mixer(channels) for _ in range(2))
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, in_chans, img_size, img_size)."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.registers.expand(x.shape[0], -1, -1), patches], dim=1)
        for mixer in self.mixers:
            tokens = mixer(gain=0.5, tokens=tokens)
        return self.head(tokens[:, 0])


default_cfgs = generate_default_cfgs({"pebblenet": {"input_size": (3, 32, 32), "num_classes": 10}})


@register_model
def pebblenet(pretrained: bool = False, **kwargs: Any) -> PebbleNet:
    """Make PebbleNet by its name in timm, so that it can be trained, saved and loaded by that name."""
    return build_model_with_cfg(PebbleNet, "pebblenet", pretrained, **kwargs)


class PebbleNetBackbone:
    """Where PebbleNet can be canonicalized: at the image and before each mixer."""

    def matches(self, model: nn.Module) -> bool:
        """Say whether `model` is a PebbleNet."""
        return isinstance(model, PebbleNet)

    def image(self, model: nn.Module) -> Stage:
        """Describe the input."""
        return Stage(IMAGE, model.patches.in_channels, NCHW(), size=model.img_size)

    def stages(self, model: nn.Module) -> Sequence[Stage]:
        """Describe the mixers: registers, then patches row by row."""
        side = model.img_size[0] // 4
        layout = Tokens((side, side), REGISTERS)
        channels = model.patches.out_channels
        return [Stage(f"mixers.{i}", channels, layout, layout) for i in range(len(model.mixers))]
