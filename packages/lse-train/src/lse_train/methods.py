"""Methods by name, and the two that need no more than the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import unknown_name
from lse_core.plugins import registry
from lse_core.settings import build
from lse_dec.checkpoint.config import CheckpointError
from lse_dec.checkpoint.source import find
from lse_train.batch import Batch
from lse_train.config import ConfigError
from lse_train.config import Method as MethodConfig

__all__ = ["Equivariance", "Plain", "make_method"]


@dataclass(frozen=True)
class Plain:
    """The task alone."""

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Cross-entropy."""
        return {"task": batch.task_loss(model(batch.images))}


@dataclass(frozen=True)
class Equivariance:
    """Nothing of its own: canonicalizers learn by Eq. 5, which needs no labels, and the backbone rests."""

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Mapping[str, Tensor]:
        """No loss."""
        return {}


def make_method(settings: MethodConfig, *, trust: bool = False) -> Any:
    """The method that `settings` name.

    Args:
        settings: name and options.
        trust: import the class that a name of the form "module:Class" tells, where no plugin provides it.

    Raises:
        UnknownNameError: no such method, or an option that it does not have.
        ConfigError: "module:Class" is not trusted, or cannot be imported.
    """
    known = registry().items("method")
    for name, method in known:  # by its name, or the same class by its place
        if settings.name in (name, f"{method.__module__}:{method.__qualname__}"):
            return build(method, **settings.options)
    if ":" not in settings.name:
        raise unknown_name("method", settings.name, [name for name, _ in known], 'Or give "module:Class".')
    if not trust:
        raise ConfigError(
            f"the method is the class {settings.name!r}, which would be imported and called: if you "
            "trust where the settings come from, pass trust=True (--trust)"
        )
    try:
        return build(find(settings.name, "method"), **settings.options)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
