"""Methods by name, and the two that need no more than the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import unknown_name
from lse_dec.settings import build
from lse_dec.training.batch import Batch
from lse_dec.training.config import ConfigError
from lse_dec.training.config import Method as MethodConfig

__all__ = ["Equivariance", "Plain", "find", "make_method"]


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


def make_method(settings: MethodConfig) -> Any:
    """The method that `settings` name.

    Raises:
        UnknownNameError: no such method, or an option that it does not have.
        ConfigError: "module:Class" cannot be imported.
    """
    built_in = {"plain": Plain, "equivariance": Equivariance}
    if settings.name in built_in:
        return build(built_in[settings.name], **settings.options)
    if ":" in settings.name:
        return build(find(settings.name, "method"), **settings.options)
    from lse_dec.recipes.methods import METHODS

    known: dict[str, Any] = {**built_in, **METHODS}
    if settings.name not in known:
        raise unknown_name("method", settings.name, known, 'Or give "module:Class".')
    return build(known[settings.name], **settings.options)


def find(path: str, what: str) -> Any:
    """The object "module:name".

    Raises:
        ConfigError: there is no such module or name.
    """
    module, _, name = path.partition(":")
    try:
        found = import_module(module)
    except ImportError as error:
        raise ConfigError(f"{what} {path!r}: cannot import {module!r} ({error})") from error
    if not name or not hasattr(found, name):
        raise ConfigError(f"{what} {path!r}: {module!r} has no {name!r}")
    return getattr(found, name)
