"""ONNX to a TensorRT engine: checked first, built for this GPU or for RTX GPUs, described beside."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from lse_core.atomic import check_target, replacing
from lse_core.errors import LSEError
from lse_export.errors import ExportError
from lse_export.gate import check
from lse_export.gate.graph import Model, open_model
from lse_export.gate.tables import load_table
from lse_export.metadata import CARRIED, read_metadata
from lse_export.tensorrt.builder import serialize
from lse_export.tensorrt.library import flavour_of, major_of, require_gpu, require_tensorrt
from lse_export.tensorrt.options import BuildOptions
from lse_export.tensorrt.profile import Range, profile_shapes
from lse_export.tensorrt.progress import BuildProgress
from lse_export.tensorrt.rtx import capabilities, refuse_options
from lse_export.tensorrt.rtx import serialize as rtx_serialize
from lse_export.tensorrt.sidecar import EngineFacts, model_hash, sidecar_of

__all__ = ["EngineBuild", "build_engine", "pass_gate"]


@dataclass(frozen=True)
class EngineBuild:
    """What a build made.

    Attributes:
        path: the engine.
        sidecar: its facts, JSON, see `EngineFacts`; the engine is not loaded without them.
        layers: what TensorRT tells of every layer, JSON: its inspector's words, or those of its log.
        facts: contents of the sidecar.
        seconds: what the build took.
        layer_count: how many layers the engine has, after TensorRT fused those of the network.
    """

    path: Path
    sidecar: Path
    layers: Path
    facts: EngineFacts
    seconds: float
    layer_count: int


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
    flavour: str = "tensorrt",
    compute_capabilities: Sequence[str] = (),
) -> EngineBuild:
    """Build a TensorRT engine of an ONNX file.

    TensorRT 10 and 11 build for the GPU at hand. TensorRT for RTX (`flavour="rtx"`) needs none: it builds
    for compute capabilities of RTX GPUs, and the GPU that runs the engine finishes its kernels.

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
        flavour: "tensorrt" for TensorRT 10 or 11, or "rtx" for TensorRT for RTX, which takes no
            `timing_cache`, no `device`, and no option that makes engines compatible or refittable.
        compute_capabilities: with "rtx", those to build for, such as "8.6"; () takes all that it knows from
            8.0 on.

    Raises:
        ExportError: TensorRT of this flavour is not installed, no GPU where it needs one, a file that the
            gate or TensorRT refuses.
        OutputError: the engine exists or cannot be written. Nothing is left half-written.
        LSEError, UnknownNameError: an option, or an axis of the profile, that cannot be.
    """
    began = time.perf_counter()
    source, path, options = Path(onnx_path), Path(engine_path), options or BuildOptions()
    check_target(path, overwrite)
    cache = Path(timing_cache) if timing_cache is not None else None
    rtx = flavour_of(flavour).name == "rtx"
    if rtx:
        refuse_options(options, timing_cache, device)
    elif compute_capabilities:
        raise LSEError("TensorRT 10 and 11 build for the GPU at hand; only flavour rtx takes capabilities")
    known = _timings(cache)
    model = open_model(source)
    shapes, told = profile_shapes(model, axes), read_metadata(model.proto)
    version = require_tensorrt(flavour)
    targets = capabilities(compute_capabilities) if rtx else []
    pass_gate(source, "tensorrt-rtx" if rtx else f"tensorrt{major_of(version)}")
    chosen = None if rtx else _gpu(device)
    digest = model_hash(source)  # before TensorRT follows what the file names
    progress = progress or BuildProgress()
    on_device = torch.cuda.device(chosen) if chosen is not None else nullcontext()
    with on_device, replacing(path, overwrite) as target:
        if rtx:
            built = rtx_serialize(source, shapes, options, targets, progress)
        else:
            built = serialize(source, shapes, options, known, progress)
        facts = EngineFacts(
            tensorrt=version,
            gpu=torch.cuda.get_device_name(chosen) if chosen is not None else "",
            compute_capability=torch.cuda.get_device_capability(chosen) if chosen is not None else (0, 0),
            precision=precision_of(model),
            profile=shapes,
            inputs={name: model.types.get(name, "unknown") for name in shapes},
            outputs={
                value.name: model.types.get(value.name, "unknown") for value in model.proto.graph.output
            },
            model=source.name,
            model_hash=digest,
            engine_hash=hashlib.sha256(built.plan).hexdigest(),
            version_compatible=options.version_compatible,
            hardware_compatible=options.hardware_compatible,
            refit=options.refit,
            tf32=options.tf32,
            optimization_level=options.optimization_level,
            flavour=flavour,
            compute_capabilities=tuple(targets),
            metadata={key: told[key] for key in CARRIED if key in told},
        )
        target.write_bytes(built.plan)
        sidecar_of(target).write_text(json.dumps(facts.as_dict(), indent=2) + "\n", "utf-8")
        target.with_name(f"{path.name}.layers.json").write_text(built.layers, "utf-8")
    if cache is not None and built.timing_cache:
        with replacing(cache, overwrite=True) as target:
            target.write_bytes(built.timing_cache)
    layers = path.with_name(f"{path.name}.layers.json")
    count = len(json.loads(built.layers).get("Layers", []))
    return EngineBuild(path, sidecar_of(path), layers, facts, time.perf_counter() - began, count)


def _gpu(device: torch.device | str | None) -> torch.device:
    """The GPU to build on and for; where there is none, the error names the flavour that needs none."""
    try:
        return require_gpu(device)
    except ExportError as error:
        raise ExportError(f"{error}; flavour rtx builds for GeForce and RTX cards without one") from error


def _timings(cache: Path | None) -> bytes:
    """What an earlier build left; refuses a file that cannot be read or replaced before the work begins."""
    if cache is None:
        return b""
    check_target(cache, overwrite=True)
    try:
        return cache.read_bytes() if cache.is_file() else b""
    except OSError as error:
        raise ExportError(f"cannot read {cache}: {error.strerror or error}") from error


def pass_gate(path: Path, target: str) -> None:
    """Refuse a file that a flavour of TensorRT will not take: ExportError with the first reason.

    Args:
        path: an ONNX file.
        target: "tensorrt10", "tensorrt11" or "tensorrt-rtx".
    """
    report = check(path, target)
    errors = [problem for problem in report.problems if problem.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ExportError(
            f"{path} is not for {load_table(target).name}: {errors[0]}{more}; "
            f"see lse export check --target {target}"
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
