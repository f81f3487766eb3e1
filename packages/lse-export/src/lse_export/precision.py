"""Half precision where it serves: the model in float16, warp coordinates and the solver in float32."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lse_core.errors import unknown_name
from lse_export.unroll import evaluating

__all__ = ["PRECISIONS", "Half", "check_precision", "halved", "tolerance_of"]

PRECISIONS = ("float32", "float16", "int8")
"""Precisions an ONNX file can have; int8 by `lse_export.quantize`."""

ALIASES = {"fp32": "float32", "fp16": "float16", "half": "float16"}
TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "int8": 0.25}


def check_precision(name: str) -> str:
    """The precision called `name` ("fp16" being "float16"); UnknownNameError for any other."""
    name = ALIASES.get(name, name)
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    return name


def tolerance_of(precision: str) -> float:
    """Largest difference from the float32 model, of the output's range, that a precision is allowed."""
    return TOLERANCES.get(precision, TOLERANCES["float32"])


def halved(model: nn.Module) -> nn.Module:
    """A copy of `model` in float16.

    Canonicalizers keep warp coordinates, their state and the solver in float32 whatever the dtype of the
    features, and cast what enters and leaves them; these casts are nodes of the graph.
    """
    with evaluating(model):
        return copy.deepcopy(model).half()


class Half(nn.Module):
    """A float16 model that takes images of any floating type, and answers in float32 unless told not to.

    Args:
        model: in float16.
        outputs: cast floating outputs back to float32.
    """

    def __init__(self, model: nn.Module, outputs: bool = True) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, image: Tensor) -> Any:
        """The model's outputs for images of any floating dtype."""
        out = self.model(image.half())
        if not self.outputs:
            return out
        return pytree.tree_map_only(Tensor, lambda x: x.float() if x.dtype == torch.float16 else x, out)
