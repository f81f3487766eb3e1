"""Weights from a file into a model: safetensors, or a torch file of which only tensors are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError

__all__ = ["load_weights", "read_weights"]

INSIDE = ("state_dict", "model", "model_state_dict")  # where trainers put weights in a checkpoint


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict that a file holds, on the CPU. Nothing in the file is run.

    Args:
        path: a safetensors file, or one of `torch.save` with a state dict, alone or as a checkpoint's
            "state_dict", "model" or "model_state_dict".

    Raises:
        LSEError: the file cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            values: Any = load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors raise errors of many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise LSEError(f"{path} cannot be read as weights: {reason}") from error
    inside = next((values[key] for key in INSIDE if isinstance(values, dict) and key in values), values)
    if not isinstance(inside, dict) or not all(isinstance(value, Tensor) for value in inside.values()):
        raise LSEError(f"{path} holds no weights: a dictionary of tensors was expected")
    return inside


def load_weights(model: nn.Module, path: Path, *, fit: bool = False) -> None:
    """Give a model the weights in a file; every weight must be there and have its shape.

    Args:
        model: any module.
        path: as for `read_weights`.
        fit: for a timm model with another number of input channels or classes than the weights: the first
            convolution's kernels are summed over channels for grey pictures and repeated for more channels
            than three (`timm.models.adapt_input_conv`), and a classifier of another size keeps its values.

    Raises:
        LSEError: the file cannot be read, or its weights are those of another model.
    """
    values = read_weights(path)
    if fit:
        values = _fitted(values, model)
    try:
        model.load_state_dict(values)
    except (AttributeError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LSEError(
            f"{path} has weights of another model than {type(model).__name__}: {reason}"
        ) from error


def _fitted(values: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    from timm.models import adapt_input_conv

    config, own = getattr(model, "pretrained_cfg", None) or {}, model.state_dict()

    def names(kind: str) -> list[str]:
        given = config.get(kind) or ()
        return [f"{given}."] if isinstance(given, str) else [f"{name}." for name in given]

    fitted = dict(values)
    for name, value in values.items():
        if name not in own or own[name].shape == value.shape:
            continue
        if name.startswith(tuple(names("classifier"))):
            fitted[name] = own[name]
        elif name.startswith(tuple(names("first_conv"))) and value.shape[1] == 3:
            fitted[name] = adapt_input_conv(own[name].shape[1], value)
    return fitted
