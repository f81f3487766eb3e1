"""Losses of the compared methods beyond the task's own: InvL (Eq. 25) and AugL (Eq. 23).

Everything else that sets methods apart is settings of a run, see `lse_train.recipes.presets`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import unknown_name
from lse_core.layouts import Layout
from lse_core.metrics import equivariance_error, invariance_error
from lse_core.resample import scale
from lse_core.settings import build
from lse_dec.adaptation import AdaptedModel
from lse_dec.backbones import backbone_of
from lse_train.batch import Batch

__all__ = ["METHODS", "AugL", "InvL", "method"]


@dataclass(frozen=True)
class _TwoViews:
    """Settings of the second view: the image under another random warp.

    Args:
        weight: of the method's own loss.
        ratio: slopes of the second view's warps lie within [1/ratio, ratio].
        segments: their segments an axis.
    """

    weight: float = 1.0
    ratio: float = 2.0
    segments: int = 4


@dataclass(frozen=True)
class InvL(_TwoViews):
    """Eq. 25: the probabilities of an image under two warps shall agree (squared L2)."""

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Cross-entropy on both views, and the weighted distance of their softmax."""
        # a mixed image cannot be drawn again from the plain one; its second view is warped twice
        source = batch.plain if batch.targets.ndim == 1 else batch.images
        other = scale(source, batch.random_warp(generator, self.ratio, self.segments))
        # one pass, so that batch statistics see both views
        first, second = model(torch.cat([batch.images, other])).chunk(2)
        error = invariance_error(first.softmax(-1), second.softmax(-1))
        task = 0.5 * (batch.task_loss(first) + batch.task_loss(second))
        return {"task": task, "invariance": self.weight * error}


@dataclass(frozen=True)
class AugL(_TwoViews):
    """Eq. 23: dense outputs shall move with the image.

    A classifier has no dense output: the last feature map stands for it. Its error is divided by the
    number of entries and by their mean square, so that shrinking the features earns nothing.
    """

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Cross-entropy on both views, and the weighted error of Eq. 23 between their feature maps."""
        warp = batch.random_warp(generator, self.ratio, self.segments)
        with _last_map(model) as seen:
            out = model(torch.cat([batch.images, scale(batch.images, warp)]))
        dense, layout = seen[0]
        first, second = dense.chunk(2)
        size = first.detach().square().mean().clamp_min(1e-12)
        error = equivariance_error(first, second, warp, layout, per_element=True) / size
        plain, moved = out.chunk(2)
        task = 0.5 * (batch.task_loss(plain) + batch.task_loss(moved))
        return {"task": task, "equivariance": self.weight * error}


METHODS: Mapping[str, type[InvL] | type[AugL]] = {"augl": AugL, "invl": InvL}
"""By the name that a run's `method` gives."""


def method(name: str, **options: Any) -> InvL | AugL:
    """The method called `name`; UnknownNameError for a name or an option that does not exist."""
    if name not in METHODS:
        raise unknown_name("method", name, ["equivariance", "plain", *METHODS])
    kind: Any = METHODS[name]
    made: InvL | AugL = build(kind, **options)
    return made


@contextmanager
def _last_map(module: nn.Module) -> Iterator[list[tuple[Tensor, Layout]]]:
    """The output of the last stage while the block runs, with its layout."""
    model = getattr(module, "module", module)  # inside DistributedDataParallel
    base = model.base if isinstance(model, AdaptedModel) else model
    stage = backbone_of(base).stages(base)[-1]
    seen: list[tuple[Tensor, Layout]] = []
    handle = base.get_submodule(stage.name).register_forward_hook(
        lambda _, args, out: seen.append((out, stage.output_layout))
    )
    try:
        yield seen
    finally:
        handle.remove()
