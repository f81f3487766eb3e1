"""The model of a run: made, adapted and given weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lse_core.errors import LSEError
from lse_core.weights import load_weights
from lse_dec.adaptation import AdaptedModel, adapt
from lse_dec.checkpoint import load
from lse_dec.checkpoint.config import CheckpointError
from lse_dec.checkpoint.source import make, named
from lse_train.config import ConfigError, Model, RunConfig
from lse_train.seeding import number

__all__ = ["base_model", "load_run", "make_model"]

load_run = load
"""As `lse_dec.load`, which takes the folder of a run."""


def make_model(config: RunConfig, *, trust: bool = False) -> nn.Module:
    """The model as training starts: weights from `model.initial` or the seed, adapted as asked for.

    Args:
        config: the run.
        trust: import and call a function that `model.name` names and no plugin provides.

    Raises:
        LSEError: a name that nothing provides, keywords that do not fit, or weights that do not.
    """
    model = seeded_base(config, trust)
    if config.model.initial:
        start = Path(config.model.initial)
        if start.is_file():
            load_weights(model, start, fit=True)
        else:
            model = load(start, model)
    if config.adapt is not None:
        if isinstance(model, AdaptedModel):
            raise ConfigError(
                f"{config.model.initial} contains an adapted model; leave adapt out to continue its training"
            )
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.adapt.items()}
        if "model" in options:
            raise ConfigError("adapt.model is not a setting; name the model under `model`")
        try:
            with _drawing(number(config.seed, "weights", 1)):
                model = adapt(model, **options)
        except LSEError:
            raise
        except (AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigError(
                f"the model cannot be adapted by the settings under adapt, {', '.join(options)}: {said}"
            ) from error
    return model


def seeded_base(config: RunConfig, trust: bool = False) -> nn.Module:
    """The base with random weights of the run's seed."""
    with _drawing(number(config.seed, "weights", 0)):
        return base_model(config.model, trust=trust)


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """torch's global generator seeded while the block runs, as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def base_model(settings: Model, *, trust: bool = False) -> nn.Module:
    """The model that `settings` name, with random weights, or timm's where they say `pretrained`.

    Raises:
        LSEError: see `lse_dec.checkpoint.source.make`; a function or a keyword that needs trust is refused
            without it.
    """
    kwargs = dict(settings.kwargs)
    pretrained = kwargs.pop("pretrained", False)
    try:
        return make(named(settings.name, kwargs), trust=trust, pretrained=bool(pretrained))
    except CheckpointError as error:
        raise ConfigError(f"model: {error}") from error
