"""Latency of a model in all the ways it can run here, the plain model beside the adapted one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, unknown_name
from lse_export.latency import interleaved
from lse_export.runtime import PROVIDERS, TensorrtOptions, open_session, run
from lse_export.to_onnx import export_onnx
from lse_export.unroll import check_example, evaluating

__all__ = ["WAYS", "BenchRow", "bench"]

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
    milliseconds: float
    spread: tuple[float, float]
    throughput: float
    ratio: float
    to_first_way: float
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
    if not models or rounds < 2 or warmup < 0:
        raise LSEError("a benchmark needs at least one model, two rounds and no negative warmup")
    for way in ways:
        if way not in WAYS:
            raise unknown_name("way to run a model", way, WAYS)
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = _Files(Path(folder), example, tensorrt)
        for way in ways:
            try:
                made = {
                    (way, name): _call(name, model, example, way, files) for name, model in models.items()
                }
                for call in made.values():
                    call()  # what cannot run is told apart before the clock starts
                calls |= made
            except Exception as error:  # compilers and drivers fail in ways of their own
                text = str(error).strip().splitlines()
                errors[way] = text[0][:200] if text else type(error).__name__
        seconds = dict(zip(calls, interleaved(list(calls.values()), rounds, warmup), strict=True))
    return [
        _failed(name, way, errors[way]) if way in errors else _row(name, way, len(example), seconds)
        for way in ways
        for name in models
    ]


def _row(name: str, way: str, batch: int, seconds: dict[tuple[str, str], list[float]]) -> BenchRow:
    own = seconds[way, name]
    low, _, high = quantiles(own, n=4)

    def over(other: list[float]) -> float:
        return median(a / b for a, b in zip(own, other, strict=True))

    first_model = next(times for (w, _), times in seconds.items() if w == way)
    first_way = next(times for (_, n), times in seconds.items() if n == name)
    return BenchRow(
        name, way, 1e3 * median(own), (1e3 * low, 1e3 * high), batch / median(own), over(first_model),
        over(first_way),
    )  # fmt: skip


def _failed(name: str, way: str, reason: str) -> BenchRow:
    nan = float("nan")
    return BenchRow(name, way, nan, (nan, nan), nan, nan, nan, reason)


class _Files:
    """Models exported once, whatever the number of ways that run the file."""

    def __init__(self, folder: Path, example: Tensor, tensorrt: TensorrtOptions | None) -> None:
        self.folder, self.example, self.tensorrt = folder, example, tensorrt

    def of(self, name: str, model: nn.Module) -> Path:
        path = self.folder / f"{name}.onnx"
        if not path.exists():
            export_onnx(model, self.example, path, allow_plain=True)
        return path


def _call(name: str, model: nn.Module, example: Tensor, way: str, files: _Files) -> Callable[[], object]:
    if way.startswith("ort-"):
        provider = way.removeprefix("ort-")
        path = files.of(name, model)
        options = files.tensorrt if provider == "tensorrt" else None
        session = open_session(path, provider, threads=torch.get_num_threads(), tensorrt=options)
        return lambda: run(session, example)
    if way == "tensorrt":
        return _engine(files.of(name, model), example)
    image = check_example(model, example)
    ran: Callable[[Tensor], object] = torch.compile(model) if way == "compiled" else model

    def call() -> None:
        with evaluating(model):
            ran(image)
        if image.is_cuda:
            torch.cuda.synchronize(image.device)

    return call


def _engine(path: Path, example: Tensor) -> Callable[[], object]:
    """Build an engine for this one batch size, and run it on tensors that are on the GPU already."""
    from lse_export.tensorrt import Engine, build_engine

    size = len(example)
    plan = build_engine(path, path.with_suffix(".plan"), axes={"batch": (size, size, size)}).path
    engine = Engine(plan, model=path)
    image = example.to(engine.device)

    def call() -> None:
        engine(image)
        torch.cuda.synchronize(engine.device)

    return call
