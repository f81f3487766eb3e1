"""The method `soft` for `lse train`: fine-tuning within the soft weights.

    method: {name: soft, options: {group: rotation, keep: 0.5}}

The model stays plain: after every optimiser step the weights are projected onto the range of P_b (projected
gradient descent), so checkpoints have plain keys, `lse_dec.adapt` and `lse export` take the result as it is,
and the bound holds at every step. The projection is the hard one whatever fine-tuning, since a taper applied
again and again would shrink what it only means to weigh.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lse_soft.errors import SoftError
from lse_soft.groups import make_group
from lse_soft.places import backbone, find_places, tensor_of
from lse_soft.softener import Softener, make_filter
from lse_soft.softening import spectrum_of
from lse_soft.thresholds import check_softness, softness_for

__all__ = ["Projection", "Soft"]


class _Batch(Protocol):
    """What this method needs of a batch, see `lse_train.batch.Batch`."""

    images: Tensor
    step: int

    def task_loss(self, outputs: Tensor) -> Tensor:
        """Loss of class scores."""
        ...


class Projection:
    """Projects chosen weights of a plain model in place onto the directions that a group moves least.

    All other arguments are those of `lse_soft.soften`.

    Args:
        model: a model without softeners; adapted ones are softened at their base's places.

    Raises:
        SoftError: as `lse_soft.soften`.
    """

    def __init__(
        self,
        model: nn.Module,
        group: str,
        softness: float | None = None,
        keep: float | None = None,
        places: Any = None,
        preserve_dc: bool = True,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if (softness is None) == (keep is None):
            raise SoftError("give exactly one of softness (singular values below b) and keep (a share)")
        made = make_group(group, settings)
        self._members: list[tuple[weakref.ref[Tensor], Softener]] = []
        with backbone(model) as base:
            for place in find_places(base, made.kinds, places):
                spectrum = spectrum_of(made, place)
                if spectrum is None:
                    continue
                b = softness if softness is not None else softness_for(spectrum.values(), keep or 0.0)
                filter_ = make_filter(spectrum, check_softness(b), "hard")
                softener = Softener(place, made, spectrum, filter_, b, "hard", preserve_dc, [])
                weight = tensor_of(base, place)
                self._members.append((weakref.ref(weight), softener.to(weight.device, weight.dtype)))

    @torch.no_grad()
    def __call__(self) -> None:
        """Project now; applying it twice changes nothing but rounding."""
        for reference, softener in self._members:
            weight = reference()
            if weight is not None:
                weight.copy_(softener(weight))

    def holds(self, optimiser: torch.optim.Optimizer) -> bool:
        """Whether the optimiser moves one of the projected weights."""
        mine = {id(reference()) for reference, _ in self._members}
        return any(id(p) in mine for group in optimiser.param_groups for p in group["params"])

    def after_each_step(self) -> None:
        """Project after every step of every optimiser that moves these weights, while they exist."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        def project(optimiser: torch.optim.Optimizer, *_: Any) -> None:
            if self.holds(optimiser):
                self()

        # not within a step, whose list of hooks is being read
        for other, handle in [pair for pair in _HOOKS if not pair[0].alive()]:
            handle.remove()
            _HOOKS.remove((other, handle))
        _HOOKS.append((self, register_optimizer_step_post_hook(project)))

    def alive(self) -> bool:
        """Whether any of the projected weights still exists."""
        return any(reference() is not None for reference, _ in self._members)


_HOOKS: list[tuple[Projection, Any]] = []


@dataclass(frozen=True)
class Soft:
    """The task alone, on weights kept softly equivariant.

    Args:
        group: name of the group.
        softness: b; or give `keep`.
        keep: share of the directions to keep.
        places: names or kinds of places, or a mapping from names to what they are; None: the group's own.
        preserve_dc: keep what filters answer to constant signals.
        settings: of the group.
    """

    group: str = "rotation"
    softness: float | None = None
    keep: float | None = None
    places: Any = None
    preserve_dc: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    _projections: weakref.WeakKeyDictionary[nn.Module, Projection] = field(
        default_factory=weakref.WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def loss(self, model: nn.Module, batch: _Batch, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Cross-entropy."""
        if model not in self._projections:
            projection = Projection(
                getattr(model, "module", model),  # inside DistributedDataParallel
                self.group,
                self.softness,
                self.keep,
                self.places,
                self.preserve_dc,
                self.settings,
            )
            if batch.step == 0:  # a resumed run's weights were projected before they were written
                projection()
            projection.after_each_step()
            self._projections[model] = projection
        return {"task": batch.task_loss(model(batch.images))}
