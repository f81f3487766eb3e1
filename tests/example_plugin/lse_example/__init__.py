"""A solver, a small network and the backbone that tells LSE where the network's stages are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lse_core import NCHW, NHWC
from lse_dec.backbones import IMAGE, Stage


@dataclass(frozen=True)
class Aitken:
    """Naive iteration with Aitken's relaxation factor, chosen anew from the last two residuals.

    Args:
        first: relaxation factor of the first step.
        limit: bound on the size of the factor.
    """

    first: float = 1.0
    limit: float = 10.0

    def init(self, z: Tensor) -> tuple[Tensor | None, Tensor]:
        """No residual yet, and the first factor for every sample."""
        return None, torch.full_like(z[:, :1], self.first)

    def step(
        self, z: Tensor, fz: Tensor, state: tuple[Tensor | None, Tensor]
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor]]:
        """Return z + factor * residual, per sample."""
        residual, (last, factor) = fz - z, state
        if last is not None:
            change = residual - last
            length = change.square().sum(-1, keepdim=True)
            secant = -factor * (last * change).sum(-1, keepdim=True) / length.clamp_min(1e-30)
            # where nothing changed the secant says nothing
            factor = torch.where(length > 1e-30, secant.clamp(-self.limit, self.limit), factor)
        return z + factor * residual, (residual, factor)


class PatchNet(nn.Module):
    """Patches of 4x4 pixels, two mixing stages on (B, H, W, C) maps, and a linear classifier."""

    def __init__(self, channels: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 4, stride=4)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU()) for _ in range(2)
        )
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, 3, H, W)."""
        x = self.patches(x).permute(0, 2, 3, 1)
        for stage in self.stages:
            x = x + stage(x)
        return self.head(x.mean((1, 2)))


class PatchNetBackbone:
    """Where PatchNet can be canonicalized: at the image and before each mixing stage."""

    def matches(self, model: nn.Module) -> bool:
        """Say whether `model` is a PatchNet."""
        return isinstance(model, PatchNet)

    def image(self, model: nn.Module) -> Stage:
        """Describe the input."""
        return Stage(IMAGE, model.patches.in_channels, NCHW())

    def stages(self, model: nn.Module) -> list[Stage]:
        """Describe the mixing stages, channels last on either side."""
        channels = model.patches.out_channels
        return [Stage(f"stages.{i}", channels, NHWC(), NHWC()) for i in range(len(model.stages))]
