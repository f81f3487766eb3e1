"""The losses of a training step: those of the method for the backbone, Eq. 5 for the canonicalizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lse_dec.adaptation import AdaptedModel, without_gradient
from lse_dec.backbones import IMAGE
from lse_dec.equivariance import equivariance_by_site
from lse_dec.monitor import as_scalars
from lse_dec.observation import Entered, Observation, observe
from lse_train.batch import Batch
from lse_train.config import Canonicalizer, ConfigError, Optim, Phase
from lse_train.methods import Equivariance
from lse_train.seeding import generator

__all__ = ["Objective", "Task", "parts_at", "phase_at"]

BACKBONE, CANONICALIZER = "backbone", "canonicalizer"


def phase_at(settings: Optim, step: int, steps: int) -> tuple[Phase, int, int]:
    """The phase of `step` out of `steps`, its first step and the one after its last."""
    total = sum(phase.share for phase in settings.phases)
    first, share = 0, 0.0
    for phase in settings.phases[:-1]:
        share += phase.share / total
        last = round(share * steps)
        if step < last:
            return phase, first, last
        first = last
    return settings.phases[-1], first, steps


def parts_at(settings: Optim, step: int, steps: int, available: Sequence[str]) -> tuple[str, ...]:
    """The parts that learn at `step` of `steps`, out of those that can."""
    wanted = phase_at(settings, step, steps)[0].train
    return tuple(part for part in (BACKBONE, CANONICALIZER) if part in available and wanted in ("both", part))


class Task:
    """One call of the objective: the batch, the parts that learn, and whether to log canonicalizers.

    No dataclass, because wrappers of modules rebuild those.
    """

    def __init__(self, batch: Batch, parts: tuple[str, ...], watched: bool = False) -> None:
        self.batch, self.parts, self.watched = batch, parts, watched


class Objective(nn.Module):
    """Losses of a batch as one forward pass, so that data parallel wrappers see every use of a parameter.

    Args:
        model: the model, adapted or not.
        method: see `lse_train.batch.Method`.
        settings: how canonicalizers learn.
        seed: the run's.

    Raises:
        ConfigError: nothing that could learn, such as Eq. 5 for a model without canonicalizers.
    """

    def __init__(self, model: nn.Module, method: Any, settings: Canonicalizer, seed: int) -> None:
        super().__init__()
        self.model, self.method, self.settings, self.seed = model, method, settings, seed
        adapted = model if isinstance(model, AdaptedModel) else None
        own = list(adapted.canonicalizer_parameters()) if adapted else []
        mine = {id(p) for p in own}
        self.members: dict[str, list[nn.Parameter]] = {
            CANONICALIZER: own,
            BACKBONE: [p for p in model.parameters() if id(p) not in mine],
        }
        self.task_gradient = settings.task_gradient
        # canonicalizers that have nothing to learn are measured but not trained
        self.motion = bool(own) and settings.weight > 0
        self.label_free = isinstance(method, Equivariance)
        parts = ([] if self.label_free else [BACKBONE]) + (
            [CANONICALIZER] if own and (self.motion or self.task_gradient) else []
        )
        if not parts:
            raise ConfigError(
                "method equivariance trains canonicalizers, and the model has none with parameters: "
                "give adapt, such as adapt: {sites: [image], canonicalizer: dec}"
            )
        self.available = tuple(parts)

    def forward(self, task: Task) -> dict[str, Tensor]:
        """Named losses, already weighted, and under "log/" what is only to be looked at."""
        batch, sites = task.batch, self._sites()
        seen: dict[str, Entered] = {}
        answers: Mapping[str, Observation] = {}
        losses: dict[str, Tensor] = {}
        canonical = CANONICALIZER in task.parts
        needs_model = BACKBONE in task.parts or (self.task_gradient and not self.label_free)
        if not needs_model and set(sites) == {IMAGE}:
            seen[IMAGE] = Entered(batch.images, False)  # Eq. 5 at the image needs nothing behind it
        else:
            resting = [] if BACKBONE in task.parts else self.members[BACKBONE]
            held = [] if self.task_gradient and canonical else self.members[CANONICALIZER]
            with self._observed() as answers, without_gradient([*resting, *held]):
                losses.update(self._task(batch))
            seen.update({name: answer.entered for name, answer in answers.items()})
        if canonical and self.motion:
            losses.update(self._equivariance(batch, seen))
        if task.watched:
            losses.update(self._told(answers, seen))
        return losses

    def set_modes(self, parts: Sequence[str]) -> None:
        """Training mode for the parts that learn; the others stay as they are, statistics included."""
        self.model.train(BACKBONE in parts)
        for site in self._sites().values():
            site.canonicalizer.train(CANONICALIZER in parts)

    def _sites(self) -> Mapping[str, Any]:
        return self.model.sites if isinstance(self.model, AdaptedModel) else {}

    def _observed(self) -> AbstractContextManager[Mapping[str, Observation]]:
        """What each site's canonicalizer sees and answers at its first call in the block."""
        return observe(self.model, first=True) if isinstance(self.model, AdaptedModel) else nullcontext({})

    def _task(self, batch: Batch) -> dict[str, Tensor]:
        if self.label_free:
            with torch.no_grad():
                self.model(batch.images)
            return {}
        return dict(self.method.loss(self.model, batch, generator(self.seed, "method", batch.step)))

    def _equivariance(self, batch: Batch, seen: Mapping[str, Entered]) -> dict[str, Tensor]:
        """Eq. 5 at every site on what entered it, with one warp an image and one number of steps."""
        s = self.settings
        n = len(batch.images)  # a method may have shown the model more, behind these
        found = equivariance_by_site(
            self.model,
            entered={name: each._replace(features=each.features[:n]) for name, each in seen.items()},
            generator=generator(self.seed, "equivariance", batch.step),
            ratio=s.ratio,
            segments=s.segments,
            distribution=s.distribution,
            steps=s.steps,
            centre=s.centre,
            prior=s.prior,
            rows=batch.rows,
            total=batch.total,
        )
        return {f"equivariance/{name}": s.weight * loss for name, loss in found.items()}

    @torch.no_grad()
    def _told(self, answers: Mapping[str, Observation], seen: Mapping[str, Entered]) -> dict[str, Tensor]:
        """What canonicalizers did, to be looked at; they are run only where no pass of the model ran them."""
        record: Mapping[str, Any] = answers or {
            name: site.canonicalizer(seen[name].features, channels_last=seen[name].channels_last)
            for name, site in self._sites().items()
        }
        return {f"log/{k}": torch.tensor(v) for k, v in as_scalars(record, "").items()}
