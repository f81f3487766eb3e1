"""ONNX to a TensorRT engine: checked first, built for this GPU or for RTX GPUs, described beside.

One code path for TensorRT 10 and 11: what 11 dropped (precision flags, explicit batch, calibrators) is not
used, and enum members are named, never numbered. What TensorRT for RTX alone has is in `tensorrt.rtx`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lse_core.atomic import check_target, replacing
from lse_core.errors import LSEError
from lse_export.errors import ExportError
from lse_export.gate import check
from lse_export.gate.graph import Model, open_model
from lse_export.gate.tables import load_table
from lse_export.metadata import CARRIED, facts_of
from lse_export.tensorrt.library import (
    Bindings,
    BuildProgress,
    flavour_of,
    interrupts,
    load,
    major_of,
    need,
    new_runtime,
    require_gpu,
)
from lse_export.tensorrt.network import Parsed, parse
from lse_export.tensorrt.rtx import aim, capabilities, layers_of
from lse_export.tensorrt.sidecar import EngineFacts, Range, Shapes, model_hash, profile_shapes, sidecar_of

if TYPE_CHECKING:
    import tensorrt


RTX_REFUSES = {
    "refit": "without a GPU it cannot build engines whose weights can be replaced",
    "version_compatible": "the library that such engines need is not part of it",
    "hardware_compatible": "its engines are built for compute capabilities; name these instead",
    "timing_cache": "it times no kernels when it builds, so there is nothing to keep",
    "device": "it builds for compute capabilities, not for a GPU at hand",
}


@dataclass(frozen=True)
class BuildOptions:
    """Settings of the builder. Precision is not among them: types are those of the ONNX file.

    Attributes:
        workspace_gib: scratch memory a layer may take, in GiB; None leaves it to TensorRT (all there is).
        optimization_level: 0 (fast to build) to 5 (tries most kernels); None is TensorRT's default, 3.
        version_compatible: later releases of the same major can load the engine, which grows and may slow
            down a little.
        hardware_compatible: all GPUs since Ampere can load it, at some cost in speed.
        refit: weights can be replaced without building again.
        tf32: let float32 products be computed with TF32's 10 bits of mantissa. Off, unlike TensorRT's
            default and like torch's, so that the engine computes what the model computes.

    Raises:
        LSEError: a setting out of range.
    """

    workspace_gib: float | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.workspace_gib is not None and not self.workspace_gib > 0:
            raise LSEError(f"workspace must be positive, in GiB; got {self.workspace_gib}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise LSEError(f"optimization level must be within 0 and 5; got {self.optimization_level}")


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
        given = asdict(options) | {"timing_cache": timing_cache is not None, "device": device is not None}
        for name, reason in RTX_REFUSES.items():
            if given[name]:
                raise LSEError(f"TensorRT for RTX does not take {name.replace('_', '-')}: {reason}")
    elif compute_capabilities:
        raise LSEError("TensorRT 10 and 11 build for the GPU at hand; only flavour rtx takes capabilities")
    timings = _read_timings(cache)
    model = open_model(source)
    shapes, told = profile_shapes(model, axes), facts_of(source, model.proto).metadata
    found = load(flavour)
    targets = capabilities(compute_capabilities) if rtx else []
    pass_gate(source, "tensorrt-rtx" if rtx else f"tensorrt{major_of(found.version)}")
    gpu = None if rtx else require_gpu(device, "; flavour rtx builds for GeForce and RTX cards without one")
    digest = model_hash(source)  # before TensorRT follows the names of files in it
    progress = progress or BuildProgress(hidden=True)
    with torch.cuda.device(gpu) if gpu is not None else nullcontext(), replacing(path, overwrite) as target:
        parsed = parse(found, source)
        config = _configure(found, parsed, source, shapes, options)
        if rtx:
            aim(found, config, targets, parsed.log)
            plan = _plan(found, parsed, config, source, progress)
            layers, timings = json.dumps({"Layers": layers_of(parsed.log.layers)}), b""
        else:
            kept = _use_timings(config, timings)
            plan = _plan(found, parsed, config, source, progress)
            layers = _layers(found, plan, parsed, options.version_compatible)
            timings = bytes(kept.serialize())
        facts = EngineFacts(
            tensorrt=found.version,
            gpu=torch.cuda.get_device_name(gpu) if gpu is not None else "",
            compute_capability=torch.cuda.get_device_capability(gpu) if gpu is not None else (0, 0),
            precision=precision_of(model),
            profile=shapes,
            inputs={name: model.types.get(name, "unknown") for name in shapes},
            outputs={out.name: model.types.get(out.name, "unknown") for out in model.proto.graph.output},
            model=source.name,
            model_hash=digest,
            engine_hash=hashlib.sha256(plan).hexdigest(),
            flavour="rtx" if rtx else "tensorrt",
            compute_capabilities=tuple(targets),
            metadata={key: told[key] for key in CARRIED if key in told},
            **{name: value for name, value in asdict(options).items() if name in EngineFacts.model_fields},
        )
        target.write_bytes(plan)
        sidecar_of(target).write_text(json.dumps(facts.plain(), indent=2) + "\n", "utf-8")
        target.with_name(f"{path.name}.layers.json").write_text(layers, "utf-8")
    if cache is not None and timings:
        with replacing(cache, overwrite=True) as target:
            target.write_bytes(timings)
    return EngineBuild(
        path, sidecar_of(path), path.with_name(f"{path.name}.layers.json"), facts,
        time.perf_counter() - began, len(json.loads(layers).get("Layers", [])),
    )  # fmt: skip


def _read_timings(cache: Path | None) -> bytes:
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
    errors = [problem for problem in check(path, target).problems if problem.severity == "error"]
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


def _configure(
    found: Bindings, parsed: Parsed, path: Path, shapes: Shapes, options: BuildOptions
) -> tensorrt.IBuilderConfig:
    """Settings and the one optimization profile of a build, any flavour's."""
    trt, builder = found.trt, parsed.builder
    config: tensorrt.IBuilderConfig = builder.create_builder_config()
    if options.workspace_gib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace_gib * 2**30))
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else only names of layers are told
    profile: tensorrt.IOptimizationProfile = builder.create_optimization_profile()
    for name, (least, usual, largest) in shapes.items():
        profile.set_shape(name, tuple(least), tuple(usual), tuple(largest))
    taken = config.add_optimization_profile(profile) >= 0
    need(taken, parsed.log, f"{found.title} refuses the profile of {path}: {shapes}")
    return config


def _use_timings(config: tensorrt.IBuilderConfig, timings: bytes) -> tensorrt.ITimingCache:
    """Let a build begin from earlier timings, or anew from those of another GPU or release."""
    kept: tensorrt.ITimingCache = config.create_timing_cache(timings)
    if not config.set_timing_cache(kept, False):
        kept = config.create_timing_cache(b"")
        config.set_timing_cache(kept, False)
    return kept


def _plan(
    found: Bindings, parsed: Parsed, config: tensorrt.IBuilderConfig, path: Path, progress: BuildProgress
) -> tensorrt.IHostMemory:
    """The engine; ExportError with TensorRT's last words where it cannot build one."""
    builder: tensorrt.Builder = parsed.builder
    config.progress_monitor = found.Monitor(progress)
    with interrupts(progress.stop):
        plan: tensorrt.IHostMemory | None = builder.build_serialized_network(parsed.network, config)
    return need(plan, parsed.log, f"{found.title} cannot build {path}")


def _layers(found: Bindings, plan: tensorrt.IHostMemory, parsed: Parsed, version_compatible: bool) -> str:
    runtime: tensorrt.Runtime = new_runtime(found, parsed.log, version_compatible)
    loaded: tensorrt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    engine: tensorrt.ICudaEngine = need(loaded, parsed.log, f"{found.title} cannot load the engine it built")
    inspector: tensorrt.EngineInspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(found.trt.LayerInformationFormat.JSON))
