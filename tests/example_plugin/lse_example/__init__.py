"""A solver, a canonicalizer, a small network, and the backbone that tells LSE where its stages are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from lse_core import NCHW, NHWC, SeparableWarp
from lse_dec.backbones import IMAGE, Stage
from lse_dec.canonicalizers.base import Canonicalization
from lse_dec.solvers import Anderson, Solver, solve


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


class Glance(nn.Module):
    """A canonicalizer that reads the warp off the map's marginals, and has a solver undo it a few times.

    The state is the warp's logits; a small network sees how much there is in each strip of the map, less
    what the warp so far has already moved there.

    Args:
        channels: channels of the map.
        segments: segments of the warp an axis.
        solver: fixed-point solver.
        steps: evaluations of the network.
        ratio: slopes of the warp lie within [1/ratio, ratio].
    """

    def __init__(
        self,
        channels: int,
        *,
        segments: int = 4,
        solver: Solver | None = None,
        steps: int = 3,
        ratio: float = 2.0,
    ) -> None:
        super().__init__()
        self.channels, self.segments, self.steps, self.ratio = channels, segments, steps, ratio
        self.solver = solver if solver is not None else Anderson()
        self.project = nn.Conv2d(channels, 4, 1)
        self.read = nn.Linear(4 * segments, 32)
        self.answer = nn.Linear(32, segments)
        for parameter in self.answer.parameters():  # the identity, to begin with
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        """Find the warps of maps (B, C, H, W), or (B, H, W, C) if `channels_last`."""
        x = self.project(features.permute(0, 3, 1, 2) if channels_last else features).abs()
        strips = torch.stack([self._strips(x.mean(2)), self._strips(x.mean(3))], dim=1)
        b, n = x.shape[0], self.segments  # len() would fix the batch on export

        def update(state: Tensor) -> Tensor:
            moved = strips * state.view(b, 2, 1, n).tanh().add(1.0)
            return self.answer(self.read(moved.flatten(2)).relu()).reshape(b, 2 * n)

        start = strips.new_zeros(b, 2 * n)
        solution = solve(update, start, self.solver, steps=self.steps)
        return Canonicalization(SeparableWarp.from_logits(solution.z.view(b, 2, n), self.ratio), solution)

    def _strips(self, line: Tensor) -> Tensor:
        """(B, 4, n) to means over equal strips, (B, 4, segments); leftover pixels are left out."""
        width = line.shape[-1] // self.segments
        return line[..., : width * self.segments].unflatten(-1, (self.segments, width)).mean(-1)


class PatchNet(nn.Module):
    """Patches of 4x4 pixels, two mixing stages on (B, H, W, C) maps, and a linear classifier."""

    def __init__(self, channels: int = 16, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_chans, channels, 4, stride=4)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU()) for _ in range(2)
        )
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, 3, H, W)."""
        x = self.patches(x).permute(0, 2, 3, 1)
        for stage in self.stages:
            x = x + stage(x)
        return self.head(x.mean((1, 2)))


default_cfgs = generate_default_cfgs({"patchnet": {"input_size": (3, 32, 32), "num_classes": 10}})


@register_model
def patchnet(pretrained: bool = False, **kwargs: Any) -> PatchNet:
    """Make PatchNet by its name in timm, so that it can be trained, saved and loaded by that name."""
    return build_model_with_cfg(PatchNet, "patchnet", pretrained, **kwargs)


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
