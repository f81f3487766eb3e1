"""Work that a call does, counted rather than timed: the same on a busy machine as on a quiet one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["Counts", "count", "observe_compiled"]

CPU_WAITS = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::equal",
)
"""Operators whose result shapes or values the host must know: on a GPU each would wait for the device."""

CUDA_WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")
"""Calls of CUDA that wait; cudaDeviceSynchronize is left out, since the profiler itself ends in one."""

FREE = (
    "empty",
    "new_empty",
    "empty_like",
    "empty_strided",
    "new_empty_strided",
    "_unsafe_view",
    "lift_fresh",
)
"""Operators that are no views by their schema and compute nothing either."""


@dataclass(frozen=True)
class Counts:
    """Work of one call; None where this way of running does not tell.

    Attributes:
        flops: floating-point operations of matrix products, convolutions and attention, by the formulas of
            `torch.utils.flop_counter`; elementwise work is not in it.
        kernels: on CPU operators dispatched that are no views, on CUDA kernels launched.
        syncs: places where the host waits for a value, or on CPU would wait had it been a GPU.
        traffic: bytes that those operators read and write, each on its own, without any cache.
        peak: bytes allocated at the worst moment above the level before the call.
    """

    flops: int | None
    kernels: int | None
    syncs: int | None
    traffic: int | None
    peak: int


def count(call: Callable[[], object], device: str = "cpu") -> Counts:
    """Run `call` once eagerly and count; it should have run before, so that caches are filled.

    Memory on CPU is the running sum of the profiler's allocation events, on CUDA the allocator's
    own peak, taken in a run of its own.
    """
    operators = _Operators()
    with operators:
        call()
    watched = observe_compiled(call, device)
    kernels = operators.kernels if device == "cpu" else watched.kernels
    return Counts(operators.flops, kernels, watched.syncs, operators.traffic, watched.peak)


def observe_compiled(call: Callable[[], object], device: str = "cpu") -> Counts:
    """As `count`, without what needs every operator to pass by: for compiled models.

    Kernels are counted on CUDA only: on CPU the compiled ones leave no trace in the profiler.
    """
    cuda = device != "cpu"
    peak = 0
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, profile_memory=not cuda) as seen:
        call()
        if cuda:
            torch.cuda.synchronize()
    events = seen.profiler.kineto_results.events()
    waits = CUDA_WAITS if cuda else CPU_WAITS
    syncs = sum(event.name() in waits for event in events)
    if not cuda:
        return Counts(None, None, syncs, None, _highest(events))
    on_device = [e.name() for e in events if e.device_type().name == "CUDA"]
    kernels = sum(not name.startswith(("Memcpy", "Memset")) for name in on_device)
    return Counts(None, kernels, syncs, None, peak)


def _highest(events: list[Any]) -> int:
    """Highest running sum of allocations less releases."""
    level = highest = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        level += event.nbytes()
        highest = max(highest, level)
    return highest


class _Operators(TorchDispatchMode):
    """Counts operators that compute something, the bytes that they touch and their FLOPs.

    `FlopCounterMode` itself keeps a tree of modules by hooks, which models that call the same module on
    tensors with and without a graph make fail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.kernels = 0
        self.traffic = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        computes = any(isinstance(t, Tensor) for t in tree_leaves(out))
        if computes and not func.is_view and func.overloadpacket.__name__ not in FREE:
            self.kernels += 1
            formula = flop_registry.get(func.overloadpacket)
            if formula is not None:
                self.flops += int(formula(*args, **(kwargs or {}), out_val=out))
            self.traffic += sum(
                t.numel() * t.element_size()
                for t in tree_leaves((args, kwargs, out))
                if isinstance(t, Tensor)
            )
        return out
