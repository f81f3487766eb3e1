"""Where a base model comes from: describing it, and making it again without running unknown code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from lse_core import timm_models
from lse_core.card import attach, card_of
from lse_core.errors import LSEError, UnknownNameError
from lse_core.lazy import import_object
from lse_core.plugins import registry
from lse_core.timm_models import FETCHING, check_keywords, check_name, reason_of, timm_keywords
from lse_dec.backbones.base import first_convolution
from lse_dec.checkpoint.config import CheckpointError, Source

__all__ = ["check_keywords", "describe", "make", "named", "same_architecture", "timm_keywords"]


def make(source: Source, *, trust: bool = False, pretrained: bool = False) -> nn.Module:
    """Make the model that `source` describes; its card names the source.

    Args:
        source: what a config or a person named.
        trust: import and call a function that no installed plugin provides, and accept any keyword.
        pretrained: with timm's own weights for the name, which may be fetched; else weights are random.

    Raises:
        CheckpointError: a function or a keyword that needs trust, one that would fetch weights, or a
            model that cannot be made.
        UnknownNameError: neither timm nor a plugin knows the name.
    """
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in source.kwargs.items()}
    try:
        model = _factory(source, trust, pretrained)(**kwargs)
    except (CheckpointError, UnknownNameError):
        raise
    except LSEError as error:
        raise CheckpointError(str(error)) from error
    except Exception as error:  # whatever a constructor raises about its keywords
        raise CheckpointError(f"cannot make the model {source.name!r}: {reason_of(error)}") from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(
            f"{source.name} returned a {type(model).__name__}, and must return a torch module"
        )
    attach(model, source=source.plain())
    return model


def named(name: str, kwargs: Mapping[str, Any] | None = None) -> Source:
    """The source that a person's or a run's name of a model stands for.

    Args:
        name: a timm model, a plugin's, or "module:function".
        kwargs: keywords to make it with.

    Raises:
        UnknownNameError: a name with a scheme ("hf-hub:...") or one that neither timm nor a plugin knows.
    """
    plain: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in (kwargs or {}).items()}
    plugins = dict(registry().items("model"))
    if name in plugins:
        return Source(source="plugin", name=name, kwargs=plain)
    for known, factory in plugins.items():  # the same function, by the place where it is or once was
        place = f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', '')}"
        if name in (place, *getattr(factory, "earlier_places", ())):
            return Source(source="plugin", name=known, kwargs=plain)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        return Source(source="factory", name=name, kwargs=plain)
    check_name(name)
    return Source(source="timm", name=name, kwargs=plain)


def _factory(source: Source, trust: bool, pretrained: bool) -> Callable[..., Any]:
    for key in source.kwargs:
        if key in FETCHING:
            raise CheckpointError(
                f"the keyword {key!r} of the model {source.name!r} would "
                f"read weights from another file; drop it"
            )
    if pretrained and source.source != "timm":
        raise CheckpointError(f"timm has no pretrained weights for {source.name!r}: leave pretrained out")
    if source.source == "given":
        raise CheckpointError(
            f"the checkpoint does not say how to make {source.name}: make it, and pass it as the base"
        )
    if source.source == "timm":
        return lambda **kwargs: timm_models.make(source.name, kwargs, pretrained=pretrained, trust=trust)
    if source.source == "plugin":
        factory: Callable[..., Any] = registry().get("model", source.name)
        if not trust:
            check_keywords(source.name, source.kwargs, inspect.signature(factory).parameters)
        return factory
    if not trust:
        raise CheckpointError(
            f"the model is made by the function {source.name!r}, which would be imported and called: if you "
            "trust where it comes from, pass trust=True (--trust)"
        )
    return find(source.name, "model")


def find(path: str, what: str) -> Any:
    """Import the object "module:name". Call this only for names that the user trusts.

    Raises:
        CheckpointError: there is no such module or name.
    """
    try:
        return import_object(path, what)
    except LSEError as error:
        raise CheckpointError(str(error)) from error


def describe(model: nn.Module, kwargs: Mapping[str, Any] | None = None) -> Source:
    """How to make `model` again.

    What its card says, if that still gives the same model, module by module. Else timm's name and the
    keywords that explain it, which timm does not remember: they are inferred and tried.

    Args:
        model: the base model.
        kwargs: the keywords of `timm.create_model`, where more than the number of classes, channels,
            image size and pooling was changed.

    Raises:
        CheckpointError: `kwargs` were given and do not give this model.
    """
    given = Source(source="given", name=f"{type(model).__module__}.{type(model).__qualname__}")
    known = card_of(model).source
    card = [Source(**known)] if known is not None and known.get("source") != "given" else []
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if kwargs is not None:
        if not name:
            raise CheckpointError(f"{given.name} was not made by timm.create_model: leave model_kwargs out")
        source = named(name, kwargs)
        if not _gives(source, model):
            raise CheckpointError(
                f"timm.create_model({name!r}, **{dict(kwargs)!r}) gives another model than this"
            )
        return source
    guesses = [named(name, guess) for guess in _guesses(model)] if name else []
    # and what may have been changed since, a new head for instance
    mixed = [
        s.model_copy(update={"kwargs": {**s.kwargs, **g.kwargs}})
        for s in card
        for g in guesses
        if s.source == "timm"
    ]
    return next((source for source in (*card, *mixed, *guesses) if _gives(source, model)), given)


def _gives(source: Source, model: nn.Module) -> bool:
    """Whether `source` makes a model of the same architecture; it came from this very process."""
    for device in ("meta", "cpu"):  # some functions cannot do without numbers
        try:
            with torch.device(device), torch.random.fork_rng(devices=[]):
                again = make(source, trust=True)
        except Exception:  # whatever a constructor raises about keywords it does not take
            continue
        return same_architecture(again, model)
    return False


def _guesses(model: Any) -> list[dict[str, Any]]:
    """Keywords that would explain `model`, fewest first."""
    cfg = model.pretrained_cfg
    kwargs: dict[str, Any] = {}
    if getattr(model, "num_classes", cfg.get("num_classes")) != cfg.get("num_classes"):
        kwargs["num_classes"] = model.num_classes
    with suppress(LSEError):  # no convolution: nothing to infer
        channels = first_convolution(model).in_channels
        if channels != (cfg.get("input_size") or (3,))[0]:
            kwargs["in_chans"] = channels
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is not None and tuple(size) != tuple(cfg.get("input_size", ()))[1:]:
        kwargs["img_size"] = tuple(size)
    if getattr(model, "dynamic_img_size", False):
        kwargs["dynamic_img_size"] = True
    pool = getattr(model, "global_pool", None)
    pool = pool if isinstance(pool, str) else getattr(pool, "pool_type", None)
    return [kwargs, *([{**kwargs, "global_pool": pool}] if isinstance(pool, str) else [])]


def same_architecture(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models consist of the same modules with the same plain attributes and shapes."""
    return _anatomy(a) == _anatomy(b)


def _anatomy(model: nn.Module) -> dict[str, Any]:
    return {
        name: (
            type(module),
            {
                key: value
                for key, value in vars(module).items()
                # flags of a run, not of the architecture
                if key not in ("training", "grad_checkpointing") and _is_plain(value)
            },
            {key: p.shape for key, p in module.named_parameters(recurse=False)},
            {key: p.shape for key, p in module.named_buffers(recurse=False)},
        )
        for name, module in model.named_modules()
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
