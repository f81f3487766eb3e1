"""What a step minimises: the method's losses for the backbone, Eq. 5 for the canonicalizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.random import random_log_slopes
from lse_core.separable import SeparableWarp
from lse_dec.adaptation import AdaptedModel
from lse_dec.backbones import IMAGE
from lse_dec.losses import canonicalizer_equivariance_loss, warp_distance
from lse_dec.monitor import as_scalars
from lse_dec.settings import takes
from lse_dec.training.batch import Batch
from lse_dec.training.config import Canonicalizer, ConfigError, Optim, Phase
from lse_dec.training.methods import Equivariance
from lse_dec.training.seeding import generator

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
    phase, _, _ = phase_at(settings, step, steps)
    if phase.train == "alternate":
        wanted: tuple[str, ...] = ((CANONICALIZER, BACKBONE)[step % 2],)
    else:
        wanted = (BACKBONE, CANONICALIZER) if phase.train == "both" else (phase.train,)
    return tuple(part for part in wanted if part in available)


class Task:
    """One call of the objective; no dataclass, because wrappers of modules rebuild those."""

    def __init__(self, batch: Batch, parts: tuple[str, ...], watched: bool = False) -> None:
        self.batch, self.parts, self.watched = batch, parts, watched


class Objective(nn.Module):
    """Losses of a batch as one forward pass, so that data parallel wrappers see every use of a parameter.

    Args:
        model: the model, adapted or not.
        method: see `lse_dec.training.batch.Method`.
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
        seen: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        canonical = CANONICALIZER in task.parts
        needs_model = BACKBONE in task.parts or (self.task_gradient and not self.label_free)
        if not needs_model and set(sites) == {IMAGE}:
            seen[IMAGE] = batch.images  # Eq. 5 at the image needs nothing behind it
        else:
            resting = [] if BACKBONE in task.parts else self.members[BACKBONE]
            held = [] if self.task_gradient and canonical else self.members[CANONICALIZER]
            with _features(sites, seen), _without_gradient([*resting, *held]):
                losses.update(self._task(batch))
        if canonical and self.motion:
            losses.update(self._equivariance(batch, seen))
        if task.watched:
            losses.update(self._watched(seen))
        return losses

    def set_modes(self, parts: Sequence[str]) -> None:
        """Training mode for the parts that learn; the others stay as they are, statistics included."""
        self.model.train(BACKBONE in parts)
        for site in self._sites().values():
            site.canonicalizer.train(CANONICALIZER in parts)

    def _sites(self) -> Mapping[str, Any]:
        return self.model.sites if isinstance(self.model, AdaptedModel) else {}

    def _task(self, batch: Batch) -> dict[str, Tensor]:
        if self.label_free:
            with torch.no_grad():
                self.model(batch.images)
            return {}
        return dict(self.method.loss(self.model, batch, generator(self.seed, "method", batch.step)))

    def _equivariance(self, batch: Batch, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 5 at every site on what entered it, with one warp an image and one number of steps."""
        s = self.settings
        source = generator(self.seed, "equivariance", batch.step)
        steps = (
            None if s.steps is None else int(torch.randint(s.steps[0], s.steps[1] + 1, (), generator=source))
        )
        drawn = random_log_slopes(
            batch.total, s.segments, s.ratio, distribution=s.distribution, generator=source
        )
        losses = {}
        for name, site in self._sites().items():
            if not any(True for _ in site.canonicalizer.parameters()):
                continue
            features = seen[name][: len(batch.images)].detach()
            precise = torch.promote_types(features.dtype, torch.float32)
            g = SeparableWarp.from_log_slopes(batch.share(drawn).to(precise))
            options: dict[str, Any] = (
                {"steps": steps} if steps and takes(site.canonicalizer.forward, "steps") else {}
            )
            last = site.where.layout.channels_last
            error = canonicalizer_equivariance_loss(
                site.canonicalizer, features, g, channels_last=last, centre=s.centre, **options
            )
            if len(features) < batch.total:
                # Eq. 5 is relative to the mean size of its warps: of the whole step's, wherever an image is
                error = error * (_size(g) / _size(SeparableWarp.from_log_slopes(drawn.to(g.x.knots))))
            losses[f"equivariance/{name}"] = s.weight * error
        return losses

    @torch.no_grad()
    def _watched(self, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        record = {}
        for name, site in self._sites().items():
            last = site.where.layout.channels_last
            record[name] = site.canonicalizer(seen[name].detach(), channels_last=last)
        return {f"log/{k}": torch.tensor(v) for k, v in as_scalars(record, "").items()}


def _size(g: SeparableWarp) -> Tensor:
    return warp_distance(g, SeparableWarp.identity(g.batch, device=g.device, dtype=g.dtype)).mean()


@contextmanager
def _features(sites: Mapping[str, Any], seen: dict[str, Tensor]) -> Iterator[None]:
    """Collect what enters each canonicalizer at its first call while the block runs."""

    def keeping(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            seen.setdefault(name, args[0])

        return hook

    handles = [site.canonicalizer.register_forward_pre_hook(keeping(name)) for name, site in sites.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _without_gradient(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """No gradient for these while the block runs."""
    wanted = [p for p in parameters if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
