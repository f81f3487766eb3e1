"""Eq. 5 as a training loss of the canonicalizers of a segmentor; needs no labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lse_core.errors import LSEError
from lse_core.separable import SeparableWarp
from lse_core.settings import takes
from lse_dec.losses import canonicalizer_equivariance_loss
from lse_dec.monitor import displacement
from lse_dec.observation import Observation
from lse_dec.sites import CanonicalizedStage

__all__ = ["CanonicalizerLoss"]


class CanonicalizerLoss:
    """How far h(S(F; g)) is from g h(F), for random warps g, at every site that has something to learn.

    The features are held fixed: it trains canonicalizers, not the backbone.

    Args:
        weight: factor of the loss, at least 0.
        segments: segments an axis of the random warps.
        ratio: bound on their slopes, within [1/ratio, ratio].
        steps: (least, most) solver steps, drawn anew each time; None takes each canonicalizer's own.
        centre: weight of the mean answer's distance from the identity, see `canonicalizer_equivariance_loss`.

    Raises:
        LSEError: a setting out of its range.
    """

    def __init__(
        self,
        weight: float = 1.0,
        segments: int = 4,
        ratio: float = 2.0,
        steps: tuple[int, int] | None = None,
        centre: float = 0.0,
    ) -> None:
        wrong_steps = steps and not 1 <= steps[0] <= steps[1]
        if weight < 0 or segments < 1 or ratio <= 1 or wrong_steps or centre < 0:
            raise LSEError(
                "canonicalizer_loss: weight and centre must be at least 0, segments at least 1, "
                "ratio above 1, steps (least, most) with 1 <= least <= most; "
                f"got {weight}, {centre}, {segments}, {ratio}, {steps}"
            )
        self.centre = centre
        self.weight, self.segments, self.ratio, self.steps = weight, segments, ratio, steps

    def __call__(
        self, sites: Mapping[str, CanonicalizedStage], seen: Mapping[str, Observation]
    ) -> dict[str, Tensor]:
        """Losses by site, and how far their warps moved (in shares of the side), as mmengine logs them.

        Args:
            sites: canonicalized stages by name.
            seen: what they saw and answered, the record of `lse_dec.observe`.
        """
        logged: dict[str, Tensor] = {}
        for name, found in seen.items():
            canonicalizer, (features, channels_last) = sites[name].canonicalizer, found.entered
            logged[f"canonicalizer.{name}.displacement"] = displacement(found).detach().mean()
            if not self.weight or not any(p.requires_grad for p in canonicalizer.parameters()):
                continue
            options: dict[str, Any] = {}
            if self.steps and takes(canonicalizer.forward, "steps"):
                options["steps"] = int(torch.randint(self.steps[0], self.steps[1] + 1, ()))
            g = SeparableWarp.random(
                len(features),
                self.segments,
                self.ratio,
                device=features.device,
                dtype=torch.promote_types(features.dtype, torch.float32),
            )
            # "loss" in the name makes mmengine add it up
            logged[f"canonicalizer.{name}.loss"] = self.weight * canonicalizer_equivariance_loss(
                canonicalizer,
                features.detach(),
                g,
                channels_last=channels_last,
                centre=self.centre,
                **options,
            )
        return logged
