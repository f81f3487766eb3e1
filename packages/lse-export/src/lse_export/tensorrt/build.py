"""ONNX to a TensorRT engine: checked first, built for this GPU, described beside."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lse_core.atomic import check_target, replacing
from lse_export.errors import ExportError
from lse_export.gate import check
from lse_export.gate.graph import Model, open_model
from lse_export.tensorrt.library import major_of, require_gpu, require_tensorrt
from lse_export.tensorrt.options import BuildOptions
from lse_export.tensorrt.profile import Range, profile_shapes
from lse_export.tensorrt.progress import BuildProgress
from lse_export.tensorrt.sidecar import EngineFacts, model_hash, sidecar_of

__all__ = ["EngineBuild", "build_engine", "pass_gate"]


@dataclass(frozen=True)
class EngineBuild:
    """What a build made.

    Attributes:
        path: the engine.
        sidecar: its facts, JSON, see `EngineFacts`; the engine is not loaded without them.
        layers: what TensorRT's inspector tells of every layer, JSON.
        facts: contents of the sidecar.
        seconds: what the build took.
    """

    path: Path
    sidecar: Path
    layers: Path
    facts: EngineFacts
    seconds: float


def build_engine(
    onnx_path: str | Path,
    engine_path: str | Path,
    *,
    axes: Mapping[str, Range] | None = None,
    options: BuildOptions | None = None,
    timing_cache: str | Path | None = None,
    device: torch.device | str | None = None,
    overwrite: bool = False,
    progress: BuildProgress | None = None,
) -> EngineBuild:
    """Build a TensorRT engine of an ONNX file for the GPU at hand, with TensorRT 10 or 11.

    The network is strongly typed: every tensor has the type it has in the file, so export the model in
    half precision to get an engine in half precision.

    Args:
        onnx_path: the file, ours or not; the gate looks at it first.
        engine_path: the engine to write; "PATH.json" and "PATH.layers.json" are written beside it.
        axes: (least, usual, largest) size of the axes that vary, by name; the batch, where it is
            left out, gets 1, 8 and 32.
        options: how to build; None for the defaults.
        timing_cache: file of kernel timings to begin from, where it exists, and to write, which makes the
            next build on the same GPU much faster.
        device: CUDA device to build on and for; None takes torch's current one.
        overwrite: replace an existing engine.
        progress: bars to fill; None shows nothing.

    Raises:
        ExportError: no TensorRT 10 or 11, no GPU, a file that the gate or TensorRT refuses.
        OutputError: the engine exists or cannot be written. Nothing is left half-written.
        LSEError, UnknownNameError: an option, or an axis of the profile, that cannot be.
    """
    began = time.perf_counter()
    source, path, options = Path(onnx_path), Path(engine_path), options or BuildOptions()
    check_target(path, overwrite)
    cache = Path(timing_cache) if timing_cache is not None else None
    known = _timings(cache)
    model = open_model(source)
    shapes = profile_shapes(model, axes)
    version = require_tensorrt()
    pass_gate(source, major_of(version))
    chosen = require_gpu(device)
    from lse_export.tensorrt.builder import serialize

    with torch.cuda.device(chosen), replacing(path, overwrite) as target:
        built = serialize(source, shapes, options, known, progress or BuildProgress())
        facts = EngineFacts(
            tensorrt=version,
            gpu=torch.cuda.get_device_name(chosen),
            compute_capability=torch.cuda.get_device_capability(chosen),
            precision=precision_of(model),
            profile=shapes,
            inputs={name: model.types.get(name, "unknown") for name in shapes},
            outputs={
                value.name: model.types.get(value.name, "unknown") for value in model.proto.graph.output
            },
            model=source.name,
            model_hash=model_hash(source),
            engine_hash=hashlib.sha256(built.plan).hexdigest(),
            version_compatible=options.version_compatible,
            hardware_compatible=options.hardware_compatible,
            refit=options.refit,
            tf32=options.tf32,
            optimization_level=options.optimization_level,
        )
        target.write_bytes(built.plan)
        sidecar_of(target).write_text(json.dumps(facts.as_dict(), indent=2) + "\n", "utf-8")
        target.with_name(f"{path.name}.layers.json").write_text(built.layers, "utf-8")
    if cache is not None and built.timing_cache:
        with replacing(cache, overwrite=True) as target:
            target.write_bytes(built.timing_cache)
    layers = path.with_name(f"{path.name}.layers.json")
    return EngineBuild(path, sidecar_of(path), layers, facts, time.perf_counter() - began)


def _timings(cache: Path | None) -> bytes:
    """What an earlier build left; refuses a file that cannot be read or replaced before the work begins."""
    if cache is None:
        return b""
    check_target(cache, overwrite=True)
    try:
        return cache.read_bytes() if cache.is_file() else b""
    except OSError as error:
        raise ExportError(f"cannot read {cache}: {error.strerror or error}") from error


def pass_gate(path: Path, major: int) -> None:
    """Refuse a file that TensorRT of this major will not take: ExportError with the first reason."""
    report = check(path, f"tensorrt{major}")
    errors = [problem for problem in report.problems if problem.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ExportError(
            f"{path} is not for TensorRT {major}: {errors[0]}{more}; "
            f"see lse export check --target tensorrt{major}"
        )


def precision_of(model: Model) -> str:
    """Types in which a model computes, such as "float16, float32" or "float32, int8"."""
    kinds = {
        model.types.get(name, "")
        for node in model.nodes
        for name in (*node.input, *node.output)
        if node.op_type != "Cast"
    }
    return ", ".join(sorted(k for k in kinds if k.startswith(("float", "bfloat", "int8", "uint8", "int4"))))
