"""Where a base model comes from: timm by name and keywords where that gives the same model again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from lse_core.errors import LSEError
from lse_dec.backbones.base import first_convolution
from lse_dec.checkpoint.config import CheckpointError

__all__ = ["describe", "rebuild", "same_architecture"]


def describe(
    model: nn.Module, kwargs: Mapping[str, Any] | None = None, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """How to make `model` again, as `Config.model` holds it.

    timm does not remember the keywords a model was made with. They are inferred and tried: the entry
    says "timm" only if the model made from them is the same, module by module.

    Args:
        model: the base model.
        kwargs: the keywords of `timm.create_model`, where more than the number of classes, channels,
            image size and pooling was changed.
        before: keywords that gave this model once, tried first.

    Raises:
        CheckpointError: `kwargs` were given and do not give this model.
    """
    given = {"source": "given", "class": f"{type(model).__module__}.{type(model).__qualname__}"}
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if not name:
        if kwargs is not None:
            raise CheckpointError(f"{given['class']} was not made by timm.create_model: drop model_kwargs")
        return given
    guesses = _guesses(model)
    if before is not None:  # and what may have been changed since, a new head for instance
        guesses = [dict(before), *({**before, **guess} for guess in guesses), *guesses]
    for guess in [dict(kwargs)] if kwargs is not None else guesses:
        source = {"source": "timm", "name": name, "kwargs": guess}
        try:
            with torch.device("meta"):
                again = rebuild(source)
        except Exception:  # whatever a constructor raises about keywords it does not take
            continue
        if same_architecture(again, model):
            return source
    if kwargs is not None:
        raise CheckpointError(
            f"timm.create_model({name!r}, **{dict(kwargs)!r}) gives another model than this"
        )
    return given


def rebuild(source: Mapping[str, Any]) -> nn.Module:
    """The model, random weights, from a "timm" entry."""
    import timm

    model: nn.Module = timm.create_model(source["name"], pretrained=False, **source["kwargs"])
    return model


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
