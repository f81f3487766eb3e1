"""Turns on the clock, and what is needed to read them: ratios with quartiles, the machine, its speed."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median, quantiles

import torch

from lse_export.bench import interleaved

__all__ = ["Ratio", "bandwidth", "code_digest", "in_turns", "machine", "ratio", "versions"]

LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Ratio:
    """Median over the rounds of time over time, with quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def ratio(seconds: list[float], base: list[float]) -> Ratio:
    """Of two calls that took turns."""
    ratios = [a / b for a, b in zip(seconds, base, strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    return Ratio(middle, low, high)


def in_turns(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of every call in every round; all should have run before, so that nothing is cold.

    As many rounds as fit into `seconds`, at least three and at most `rounds`. Each round begins with another
    call than the one before, so that none always finds the caches as the same neighbour left them.
    """
    names = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for k in range(rounds):
        if k >= LEAST_ROUNDS and time.perf_counter() - began > seconds:
            break
        first = k % len(names)
        order = [*names[first:], *names[:first]]
        for name, (each,) in zip(order, interleaved([calls[name] for name in order], 1, 0), strict=True):
            taken[name].append(each)
    return taken


def bandwidth(device: str = "cpu", megabytes: int = 256) -> float:
    """Bytes a second that a plain copy reads and writes, median of nine."""
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if source.is_cuda:
            torch.cuda.synchronize()

    taken = interleaved([copy], 9, 2)[0]
    return 2 * source.nbytes / median(taken)


def machine(device: str) -> str:
    """What it ran on, in words."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores, {torch.get_num_threads()} thread(s) used, no GPU"


def versions() -> str:
    """Of what the numbers depend on."""
    import timm

    return f"torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}"


@cache
def code_digest() -> str:
    """Of the sources of lse_core and lse_dec: tables of other sources are not taken up again."""
    import lse_core
    import lse_dec

    digest = hashlib.sha256()
    for package in (lse_core, lse_dec):
        for file in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
