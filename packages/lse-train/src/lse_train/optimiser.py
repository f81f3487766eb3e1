"""AdamW for backbone and canonicalizers, with learning rates over a run and clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn

from lse_dec.adaptation import AdaptedModel
from lse_train.config import Optim
from lse_train.objective import BACKBONE, CANONICALIZER, phase_at

__all__ = ["Schedule", "clip", "make_optimiser"]


def make_optimiser(
    model: nn.Module, settings: Optim, members: Mapping[str, Sequence[nn.Parameter]], parts: Sequence[str]
) -> torch.optim.AdamW:
    """AdamW with timm's groups for the backbone, and one group more for the canonicalizers.

    Each group has "part", and "lr_scale" from layer decay, beside what AdamW wants.

    Args:
        model: the model, adapted or not.
        settings: rates and decay.
        members: parameters by part.
        parts: the parts that learn at all.
    """
    groups: list[dict[str, Any]] = []
    if BACKBONE in parts:
        if isinstance(model, AdaptedModel):
            with model.without_sites() as base:  # the names that timm's patterns know
                found = _backbone_groups(base, settings)
        else:
            found = _backbone_groups(model, settings)
        groups += [{"lr_scale": 1.0, **group, "part": BACKBONE} for group in found]
    if CANONICALIZER in parts:
        for decay, wanted in ((settings.weight_decay, True), (0.0, False)):
            params = [p for p in members[CANONICALIZER] if p.requires_grad and (p.ndim > 1) is wanted]
            if params:
                groups.append(
                    {"params": params, "weight_decay": decay, "lr_scale": 1.0, "part": CANONICALIZER}
                )
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.betas[0], settings.betas[1]))


def _backbone_groups(base: Any, settings: Optim) -> list[dict[str, Any]]:
    exempt = base.no_weight_decay() if hasattr(base, "no_weight_decay") else ()
    found: list[dict[str, Any]]
    if settings.layer_decay < 1:
        found = param_groups_layer_decay(
            base, settings.weight_decay, no_weight_decay_list=exempt, layer_decay=settings.layer_decay
        )
    else:
        found = param_groups_weight_decay(base, settings.weight_decay, no_weight_decay_list=exempt)
    return [group for group in found if group["params"]]


class Schedule:
    """Rates by step: in every phase a linear rise, then a cosine down to `final` of the peak.

    A function and no counter, so that there is no state to resume.

    Args:
        settings: rates and phases.
        steps: optimiser steps of the run.
    """

    def __init__(self, settings: Optim, steps: int) -> None:
        self.settings, self.steps = settings, steps

    def factor(self, step: int) -> float:
        """Share of the peak at `step`, from 0 to `steps` - 1."""
        _, first, last = phase_at(self.settings, step, self.steps)
        step, length = step - first, last - first
        rise = round(self.settings.warmup * length)
        if step < rise:
            return (step + 1) / (rise + 1)
        done = (step - rise) / max(1, length - rise)
        final = self.settings.final
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    def apply(self, optimiser: torch.optim.Optimizer, step: int) -> dict[str, float]:
        """Set the rates of `step`; returns the highest of each part."""
        peaks = {BACKBONE: self.settings.lr, CANONICALIZER: self.settings.canonicalizer_lr}
        rates: dict[str, float] = {}
        for group in optimiser.param_groups:
            group["lr"] = peaks[group["part"]] * group["lr_scale"] * self.factor(step)
            name = f"lr/{group['part']}"
            rates[name] = max(group["lr"], rates.get(name, 0.0))
        return rates


def clip(
    members: Mapping[str, Sequence[nn.Parameter]], parts: Sequence[str], settings: Optim
) -> dict[str, Tensor]:
    """Bound the norm of each part's gradient on its own; returns the norms before, 0-dim."""
    bounds = {BACKBONE: settings.clip, CANONICALIZER: settings.canonicalizer_clip}
    return {
        f"gradient/{part}": nn.utils.clip_grad_norm_(members[part], bounds[part] or math.inf).detach()
        for part in parts
    }
