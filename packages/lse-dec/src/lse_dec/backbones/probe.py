"""Running a model once on blank images to see which modules take a spatial map, and in which layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_core.layouts import NCHW, Tokens, layout_of, patch_grid
from lse_core.modes import evaluating
from lse_dec.arguments import call_with, first_parameter
from lse_dec.backbones.base import Stage, first_convolution

__all__ = ["Seen", "image_sizes", "probe"]

BATCH = 2  # tells a batch of windows from a batch of maps


@dataclass(frozen=True)
class Seen:
    """What one module took and returned when the model ran on blank images.

    Attributes:
        stage: the module as a stage, or None where its input is no spatial map.
        shape: of its first argument, batch first; empty if that is no tensor.
        output: of its output; empty if that is no single tensor.
        why: where `stage` is None, why, as the end of a sentence.
    """

    stage: Stage | None
    shape: tuple[int, ...]
    output: tuple[int, ...]
    why: str = ""


def probe(model: nn.Module, size: tuple[int, int] | None = None) -> dict[str, Seen]:
    """Run `model` once on blank images and describe every module that ran, in order of execution.

    Nothing of the model is changed: the run is in eval mode and without gradients. The model itself is
    the entry "".

    Args:
        model: any model that takes a batch of images.
        size: (height, width) of the images; None tries the sizes that the model's metadata name, then
            some common ones.

    Raises:
        LSEError: the model could not be run at any of the sizes.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    channels = _channels(model)
    reason = ""
    for height, width in [size] if size else image_sizes(model):
        x = torch.zeros(BATCH, channels, height, width, device=like.device, dtype=like.dtype)
        try:
            return _run(model, x)
        except LSEError:
            raise
        except Exception as error:  # whatever a strange model raises about a size it does not take
            reason = reason or f"{height} x {width}: {' '.join(str(error).split())[:160]}"
    raise LSEError(
        f"{type(model).__name__} could not be run on blank images ({reason}); "
        "if it takes images of one size only, set its attribute img_size to (height, width)"
    )


def image_sizes(model: Any) -> list[tuple[int, int]]:
    """Sizes of images to try, most likely first."""
    found = [getattr(m, "img_size", None) for m in (model, getattr(model, "patch_embed", None))]
    # torchvision's ViT, transformers' models
    found += [getattr(m, "image_size", None) for m in (model, getattr(model, "config", None))]
    found.append((getattr(model, "pretrained_cfg", None) or {}).get("input_size", (0,))[1:])
    sizes = [(s, s) if isinstance(s, int) else tuple(s) for s in found if isinstance(s, int | tuple | list)]
    return list(dict.fromkeys([*(s for s in sizes if len(s) == 2), (224, 224), (64, 64), (32, 32)]))


def _channels(model: nn.Module) -> int:
    try:
        return first_convolution(model).in_channels
    except LSEError:
        return 3


def _run(model: nn.Module, x: Tensor) -> dict[str, Seen]:
    calls: dict[str, list[tuple[Any, Any]]] = {}
    names = {module: name for name, module in model.named_modules()}

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls.setdefault(names[module], [])  # in the order of execution

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        first = args[0] if args else kwargs.get(first_parameter(module) or "")
        calls[names[module]].append((first, out))

    handles = [m.register_forward_pre_hook(before) for m in names]
    handles += [m.register_forward_hook(after, with_kwargs=True) for m in names]
    try:
        with torch.no_grad(), evaluating(model):
            call_with(model, x)
    finally:
        for handle in handles:
            handle.remove()
    grid = patch_grid(model)
    return {name: _seen(name, made, model, x, grid) for name, made in calls.items() if made}


def _seen(name: str, calls: list[tuple[Any, Any]], model: nn.Module, x: Tensor, grid: Any) -> Seen:
    first, out = calls[0]
    shape = tuple(first.shape) if isinstance(first, Tensor) else ()
    output = tuple(out.shape) if isinstance(out, Tensor) else ()
    module = model.get_submodule(name)
    if not shape:
        why = "takes no tensor as its first argument"
    elif len(calls) > 1:
        why = f"is called {len(calls)} times in one pass"
    elif first is x and name:
        why = "takes the image itself (that site is called 'image')"
    elif (found := layout_of(first, module, model, grid, BATCH)) is None:
        why = f"takes no spatial map but a tensor of shape {shape[1:]}"
    else:
        layout, channels = found
        size = layout.grid if isinstance(layout, Tokens) else None  # maps follow the image's size
        back = layout_of(out, module, model, grid, BATCH) if isinstance(out, Tensor) else None
        return Seen(Stage(name, channels, layout, back[0] if back else NCHW(), size), shape, output)
    return Seen(None, shape, output, why)
