"""How long the exported file takes beside the model it came from, measured in turns in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_export.runtime import open_session, run
from lse_export.unroll import check_example, evaluating

__all__ = ["LatencyRatio", "interleaved", "latency_ratio"]


@dataclass(frozen=True)
class LatencyRatio:
    """Latency of the file over latency of the model; `float(...)` gives the ratio.

    Attributes:
        ratio: median of the rounds' ratios, below 1 where the file is faster.
        onnx_ms: median milliseconds of ONNX Runtime.
        eager_ms: median milliseconds of the model in eager mode.
        spread: quartiles of the rounds' ratios.
        rounds: how many times each ran.
        threads: CPU threads both had.
        providers: what ONNX Runtime ran on.
    """

    ratio: float
    onnx_ms: float
    eager_ms: float
    spread: tuple[float, float]
    rounds: int
    threads: int
    providers: list[str]

    def __float__(self) -> float:
        return self.ratio


def latency_ratio(
    path: str | Path,
    model: nn.Module,
    example: Tensor,
    *,
    rounds: int = 20,
    warmup: int = 3,
    provider: str = "cpu",
) -> LatencyRatio:
    """Time the file and the model alternately on one batch, both with torch's number of threads.

    Alternating lets other load on the machine fall on both; the ratio is taken within each round.

    Args:
        path: the ONNX file.
        model: the model, run in eval mode without gradients and left as it was.
        example: (B, C, H, W), the batch both run on.
        rounds: measurements of each, at least 2.
        warmup: runs of each before them.
        provider: ONNX Runtime's execution provider.

    Raises:
        ExportError: the file cannot be run.
        LSEError: fewer than two rounds.
    """
    if rounds < 2 or warmup < 0:
        raise LSEError(f"latency needs at least 2 rounds and no negative warmup; got {rounds} and {warmup}")
    threads = torch.get_num_threads()
    session = open_session(path, provider, threads=threads)
    example = check_example(model, example)

    def eager() -> None:
        model(example)
        if example.is_cuda:
            torch.cuda.synchronize(example.device)

    with evaluating(model):
        ours, theirs = interleaved([lambda: run(session, example), eager], rounds, warmup)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return LatencyRatio(
        ratio=median(ratios),
        onnx_ms=1e3 * median(ours),
        eager_ms=1e3 * median(theirs),
        spread=(low, high),
        rounds=rounds,
        threads=threads,
        providers=list(session.get_providers()),
    )


def interleaved(calls: list[Callable[[], object]], rounds: int, warmup: int) -> list[list[float]]:
    """Seconds of every call in every round, the calls taking turns: one list per call."""
    seconds: list[list[float]] = [[] for _ in calls]
    for k in range(warmup + rounds):
        for call, record in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            call()
            if k >= warmup:
                record.append(time.perf_counter() - began)
    return seconds
