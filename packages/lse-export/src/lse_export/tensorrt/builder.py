"""The part of a build that calls TensorRT 10 or 11, on a GPU.

One code path for both: what 11 dropped (precision flags, explicit batch, calibrators) is not used, and enum
members are named, never numbered. TensorRT for RTX is built by `lse_export.tensorrt.rtx`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lse_export.errors import ExportError
from lse_export.tensorrt.bindings import Bindings, load, new_runtime
from lse_export.tensorrt.options import BuildOptions
from lse_export.tensorrt.parser import Parsed, parse
from lse_export.tensorrt.profile import Shapes
from lse_export.tensorrt.progress import BuildProgress, interrupts

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Built", "configure", "make_plan", "serialize"]


@dataclass(frozen=True)
class Built:
    """What the builder made.

    Attributes:
        plan: the serialized engine, anything with the buffer protocol.
        timing_cache: its measurements of kernels, for the next build; b"" where there are none.
        layers: JSON about every layer.
    """

    plan: tensorrt.IHostMemory
    timing_cache: bytes
    layers: str


def serialize(
    path: Path, shapes: Shapes, options: BuildOptions, timing_cache: bytes, progress: BuildProgress
) -> Built:
    """Parse the ONNX file and build it on the current CUDA device.

    Args:
        path: an ONNX file that passed the gate.
        shapes: least, usual and largest shape of every input.
        options: how to build.
        timing_cache: of an earlier build, or b"".
        progress: told of every phase.

    Raises:
        ExportError: TensorRT cannot start, read the file or build it.
        KeyboardInterrupt: the user stopped the build.
    """
    found = load()
    parsed = parse(found, path)
    config = configure(found, parsed, path, shapes, options)
    cache: tensorrt.ITimingCache = config.create_timing_cache(timing_cache)
    if not config.set_timing_cache(cache, False):
        # measured on another GPU or by another release: begin anew rather than trust it
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    plan: tensorrt.IHostMemory = make_plan(found, parsed, config, path, progress)
    layers = _layers(found, plan, parsed.log, options.version_compatible)
    return Built(plan, bytes(cache.serialize()), layers)


def configure(
    found: Bindings, parsed: Parsed, path: Path, shapes: Shapes, options: BuildOptions
) -> tensorrt.IBuilderConfig:
    """Settings and the one optimization profile of a build, any flavour's.

    Raises:
        ExportError: TensorRT refuses the profile.
    """
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
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"{found.title} refuses the profile of {path}: {shapes}{parsed.log.last()}")
    return config


def make_plan(
    found: Bindings, parsed: Parsed, config: tensorrt.IBuilderConfig, path: Path, progress: BuildProgress
) -> tensorrt.IHostMemory:
    """Build.

    Raises:
        ExportError: TensorRT cannot; its last words.
        KeyboardInterrupt: the user stopped the build.
    """
    builder: tensorrt.Builder = parsed.builder
    config.progress_monitor = found.Monitor(progress)
    with interrupts(progress.stop):
        plan: tensorrt.IHostMemory | None = builder.build_serialized_network(parsed.network, config)
    if progress.stopped:
        raise KeyboardInterrupt
    if plan is None:
        raise ExportError(f"{found.title} cannot build {path}{parsed.log.last()}")
    return plan


def _layers(found: Bindings, plan: tensorrt.IHostMemory, log: Any, version_compatible: bool) -> str:
    runtime: tensorrt.Runtime = new_runtime(found, log, version_compatible)
    engine: tensorrt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ExportError(f"{found.title} cannot load the engine it built{log.last()}")
    inspector: tensorrt.EngineInspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(found.trt.LayerInformationFormat.JSON))
