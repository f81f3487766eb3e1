"""timm's HRNet: parallel branches at several resolutions."""

from __future__ import annotations

from typing import Any

from torch import nn

from lse_core.layouts import NCHW
from lse_dec.backbones.base import IMAGE, Stage, first_convolution, is_a

__all__ = ["HRNet"]


class HRNet:
    """`layer1`, every branch of the three multi-resolution stages, and the branches of the head.

    The multi-resolution stages take a list of maps, one a branch. A warp before one branch alone puts
    it out of step with the others, unless the mode is "equivariant", which warps its output back.
    """

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's HighResolutionNet."""
        return is_a(model, "timm.models.hrnet.HighResolutionNet")

    def image(self, model: Any) -> Stage:
        """The image, as the stem takes it."""
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW())

    def stages(self, model: Any) -> list[Stage]:
        """`layer1`, `stage2.0.branches.0` and so on, `incre_modules.0` and so on."""
        names = ["layer1"]
        for stage in ("stage2", "stage3", "stage4"):
            for i, module in enumerate(getattr(model, stage)):
                names += [f"{stage}.{i}.branches.{b}" for b in range(len(module.branches))]
        names += [f"incre_modules.{i}" for i in range(len(model.incre_modules or ()))]
        # these all begin with a convolution
        return [Stage(n, first_convolution(model.get_submodule(n)).in_channels, NCHW()) for n in names]
