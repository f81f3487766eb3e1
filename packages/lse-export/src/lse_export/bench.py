"""Latency of a model in all the ways it can run here, and of an exported file beside its model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import nan
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, unknown_name
from lse_export.errors import first_line
from lse_export.runtime import PROVIDERS, TensorrtOptions, open_session, run
from lse_export.tensorrt import Engine, build_engine
from lse_export.to_onnx import export_onnx
from lse_export.unroll import check_example, evaluating

__all__ = ["WAYS", "BenchRow", "bench", "interleaved", "latency_ratio"]

WAYS = ("eager", "compiled", *(f"ort-{name}" for name in PROVIDERS), "tensorrt")
"""Ways to run a model: eager, torch.compile, ONNX Runtime by provider, and a TensorRT engine."""


@dataclass(frozen=True)
class BenchRow:
    """One model run one way.

    Attributes:
        model: the name it was given.
        way: one of `WAYS`.
        milliseconds: median of a batch.
        spread: quartiles, milliseconds.
        throughput: images a second, from the median.
        ratio: median over rounds of the time over that of the first model run the same way; 1 for
            the first model itself.
        to_first_way: likewise over that of the same model run the first way that works here.
        error: why it could not be run here, else "" (the numbers are then NaN).
    """

    model: str
    way: str
    milliseconds: float = nan
    spread: tuple[float, float] = (nan, nan)
    throughput: float = nan
    ratio: float = nan
    to_first_way: float = nan
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        values = {k: None if isinstance(v, float) and v != v else v for k, v in asdict(self).items()}
        return values | ({"spread": None} if self.error else {})


def bench(
    models: dict[str, nn.Module],
    example: Tensor,
    *,
    ways: Sequence[str] = ("eager", "ort-cpu"),
    rounds: int = 20,
    warmup: int = 3,
    tensorrt: TensorrtOptions | None = None,
) -> list[BenchRow]:
    """Time every model every way, all taking turns so that other load on the machine falls on all.

    Args:
        models: by name; the first is what the others are compared with (the plain model).
        example: (B, C, H, W), the batch all run on.
        ways: which of `WAYS`. A way that does not work here is reported, not raised.
        rounds: measurements of each, at least 2.
        warmup: runs of each before them.
        tensorrt: for the way "ort-tensorrt".

    Raises:
        UnknownNameError: no such way.
        LSEError: no model, or fewer than two rounds.
    """
    if not models:
        raise LSEError("a benchmark needs at least one model")
    _check_rounds(rounds, warmup)
    for way in ways:
        if way not in WAYS:
            raise unknown_name("way to run a model", way, WAYS)
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:

        @cache
        def exported(name: str) -> Path:
            return export_onnx(models[name], example, Path(folder) / f"{name}.onnx", allow_plain=True).path

        def call_of(name: str, way: str) -> Callable[[], object]:
            if way == "tensorrt":
                return _engine(exported(name), example)
            kind, _, provider = way.partition("-")
            if kind == "ort":
                options = tensorrt if provider == "tensorrt" else None
                threads = torch.get_num_threads()
                session = open_session(exported(name), provider, threads=threads, tensorrt=options)
                return lambda: run(session, example)
            return _eager(models[name], example, compiled=way == "compiled")

        for way in ways:
            try:
                made = {(way, name): call_of(name, way) for name in models}
                for call in made.values():
                    call()  # what cannot run is told apart before the clock starts
                calls |= made
            except Exception as error:  # compilers and drivers fail in ways of their own
                errors[way] = first_line(error)
        seconds = dict(zip(calls, interleaved(list(calls.values()), rounds, warmup), strict=True))
    return [_row(name, way, len(example), seconds, errors.get(way, "")) for way in ways for name in models]


def latency_ratio(
    path: str | Path,
    model: nn.Module,
    example: Tensor,
    *,
    rounds: int = 20,
    warmup: int = 3,
    provider: str = "cpu",
) -> float:
    """Time a file and its model alternately on one batch, both with torch's number of threads.

    Alternating lets other load on the machine fall on both; the ratio is taken within each round.

    Args:
        path: the ONNX file.
        model: the model, run in eval mode without gradients and left as it was.
        example: (B, C, H, W), the batch both run on.
        rounds: measurements of each, at least 2.
        warmup: runs of each before them.
        provider: ONNX Runtime's execution provider.

    Returns:
        The median of the rounds' ratios, below 1 where the file is faster. `bench` gives times and quartiles.

    Raises:
        ExportError: the file cannot be run.
        LSEError: fewer than two rounds.
    """
    _check_rounds(rounds, warmup)
    session = open_session(path, provider, threads=torch.get_num_threads())
    calls = [lambda: run(session, example), _eager(model, example)]
    ours, theirs = interleaved(calls, rounds, warmup)
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def _check_rounds(rounds: int, warmup: int) -> None:
    if rounds < 2 or warmup < 0:
        raise LSEError(f"timing needs at least 2 rounds and no negative warmup; got {rounds} and {warmup}")


def interleaved(calls: Sequence[Callable[[], object]], rounds: int, warmup: int) -> list[list[float]]:
    """Seconds of every call in every round, the calls taking turns: one list per call."""
    seconds: list[list[float]] = [[] for _ in calls]
    for k in range(warmup + rounds):
        for call, record in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            call()
            if k >= warmup:
                record.append(time.perf_counter() - began)
    return seconds


def _row(
    name: str, way: str, batch: int, seconds: dict[tuple[str, str], list[float]], error: str
) -> BenchRow:
    if error:
        return BenchRow(name, way, error=error)
    own = [1e3 * time for time in seconds[way, name]]
    low, _, high = quantiles(own, n=4)

    def over(other: list[float]) -> float:
        return median(a / b for a, b in zip(seconds[way, name], other, strict=True))

    first_model = next(times for (w, _), times in seconds.items() if w == way)
    first_way = next(times for (_, n), times in seconds.items() if n == name)
    return BenchRow(
        name, way, median(own), (low, high), 1e3 * batch / median(own), over(first_model), over(first_way)
    )


def _eager(model: nn.Module, example: Tensor, compiled: bool = False) -> Callable[[], object]:
    """Run the model, or what torch compiles it to, and wait for a GPU to finish."""
    image = check_example(model, example)
    ran: Callable[[Tensor], object] = torch.compile(model) if compiled else model

    def call() -> None:
        with evaluating(model):
            ran(image)
        if image.is_cuda:
            torch.cuda.synchronize(image.device)

    return call


def _engine(path: Path, example: Tensor) -> Callable[[], object]:
    """Build an engine for this one batch size, and run it on tensors that are on the GPU already."""
    size = len(example)
    plan = build_engine(path, path.with_suffix(".plan"), axes={"batch": (size, size, size)}).path
    engine = Engine(plan, model=path)
    image = example.to(engine.device)

    def call() -> None:
        engine(image)
        torch.cuda.synchronize(engine.device)

    return call
