"""What the canonicalizers of a model saw and answered: one record for logging, pictures and Eq. 5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_dec.canonicalizers.base import Canonicalization, Warp
from lse_dec.solvers import Solution

__all__ = ["Entered", "Observation", "observe"]


class Entered(NamedTuple):
    """The features that entered the canonicalizer of a site.

    Attributes:
        features: (B, C, H, W), or (B, H, W, C) if `channels_last`, in the model's floating dtype. Tokens come
            as such a map, without their prefix; with feed="image" it is the image.
        channels_last: whether the channels are the last axis.
    """

    features: Tensor
    channels_last: bool


@dataclass(frozen=True)
class Observation:
    """One call of a site's canonicalizer.

    `observation[:n]` is the observation of the first n samples; any slice works.

    Attributes:
        entered: the features as they entered, still part of the graph of the pass that made them.
        result: the canonicalizer's answer.
    """

    entered: Entered
    result: Canonicalization

    @property
    def features(self) -> Tensor:
        """The features as (B, C, H, W), a view."""
        features, channels_last = self.entered
        return features.permute(0, 3, 1, 2) if channels_last else features

    @property
    def channels_last(self) -> bool:
        """Whether the features entered as (B, H, W, C)."""
        return self.entered.channels_last

    @property
    def warp(self) -> Warp:
        """The warp of the answer, batch B."""
        return self.result.warp

    @property
    def solution(self) -> Solution | None:
        """The solve behind the answer, None for canonicalizers that do not iterate."""
        return self.result.solution

    def __getitem__(self, samples: slice) -> Observation:
        entered = self.entered._replace(features=self.entered.features[samples])
        return Observation(entered, self.result[samples])


@contextmanager
def observe(model: nn.Module | Mapping[str, Any], *, first: bool = False) -> Iterator[dict[str, Observation]]:
    """Record every site's canonicalizer while the block runs; nothing is kept otherwise.

        with observe(adapted) as record:
            loss = criterion(adapted(images), labels)
        as_scalars(record)  # lse_dec.monitor

    Blocks may be nested, and each fills a record of its own.

    Args:
        model: what `lse_dec.adapt` returned, a parallel or compiled wrapper of it, any module whose attribute
            `sites` maps names to canonicalized stages, or such a mapping.
        first: which of a site's calls stays in the record. False: the last one, for logging and pictures,
            where the newest counts. True: the first one, for Eq. 5 in a training step that may run the model
            several times; what entered first are the step's own images.

    Yields:
        A dict by the name of the site, in the order in which they ran, filled by each forward pass.

    Raises:
        LSEError: a model without sites.
    """
    record: dict[str, Observation] = {}

    def recorder(name: str) -> Any:
        def keep(observation: Observation) -> None:
            if not first:
                record.pop(name, None)
            if name not in record:
                record[name] = observation

        return keep

    recorders = [(site, recorder(name)) for name, site in _sites(model).items()]
    for site, keep in recorders:
        site.observers = (*site.observers, keep)
    try:
        yield record
    finally:
        for site, keep in recorders:
            site.observers = tuple(other for other in site.observers if other is not keep)


def _sites(model: Any) -> dict[str, Any]:
    if isinstance(model, Mapping):
        return dict(model)
    # wrappers hold the model as a module of theirs
    found = next((module for module in model.modules() if hasattr(module, "sites")), None)
    if found is None:
        raise LSEError(f"observe takes what lse_dec.adapt returned; got {type(model).__name__}")
    return dict(found.sites)
