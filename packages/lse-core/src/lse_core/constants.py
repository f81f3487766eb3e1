"""Small constant tensors, made once because making them costs more than using them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps

import torch
from torch import Tensor

__all__ = ["constant", "in_a_graph"]


def constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let `make`, a function of numbers, `device` and `dtype`, remember the last tensors it made.

    For functions that make the same small tensor from the same arguments every time. Nobody may write to
    what they return. Each function keeps its 64 latest tensors; they belong to the process and to no module,
    so they are never saved, copied or moved. Graphs hold their own: while one is traced, compiled or
    exported nothing is remembered.
    """

    @lru_cache(maxsize=64)
    def remembered(*args: int, **where: object) -> Tensor:
        # a tensor made in inference mode could not be saved for a backward pass later
        with torch.inference_mode(False), torch.no_grad():
            return make(*args, **where)

    @wraps(make)
    def made(*args: int, **where: object) -> Tensor:
        return make(*args, **where) if in_a_graph() or _faked() else remembered(*args, **where)

    return made


def _faked() -> bool:
    """Whether a mode fakes tensors, which would refuse a real one.

    Torch says so by a private name only. The public way, to make an empty tensor and look at its type, takes
    about as long as `constant` saves (4 of 6 microseconds).
    """
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


def in_a_graph() -> bool:
    """Whether a graph is being traced, compiled or exported, in which tensors stand for others."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
