"""Small constant tensors, made once: a solve would otherwise spend more time making than using them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps

import torch
from torch import Tensor

__all__ = ["constant"]


def constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let `make`, a function of numbers, `device` and `dtype`, remember the last tensors it made.

    For functions that make the same tensor from the same arguments every time. Nobody may write to what
    they return. The tensors belong to the process and to no module, so they are never saved, copied or moved.
    Graphs hold their own: while one is traced, compiled or exported nothing is remembered.
    """

    @lru_cache(maxsize=256)
    def remembered(*args: int, **where: object) -> Tensor:
        # a tensor made in inference mode could not be saved for a backward pass later
        with torch.inference_mode(False), torch.no_grad():
            return make(*args, **where)

    @wraps(make)
    def made(*args: int, **where: object) -> Tensor:
        return make(*args, **where) if _in_a_graph() else remembered(*args, **where)

    return made


def _in_a_graph() -> bool:
    """Whether tensors now stand for others: in a graph that is being made, or as fakes without values."""
    if torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch._C._is_tracing():
        return True
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
