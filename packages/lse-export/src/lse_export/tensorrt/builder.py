"""The part of a build that calls TensorRT; import it only after `require_tensorrt`.

One code path for TensorRT 10 and 11: what 11 dropped (precision flags, explicit batch, calibrators) is not
used, and enum members are named, never numbered. Variables that hold TensorRT objects are annotated, so that
a test can look up every name used here in both majors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tensorrt as trt

from lse_export.errors import ExportError
from lse_export.tensorrt.options import BuildOptions
from lse_export.tensorrt.profile import Shapes
from lse_export.tensorrt.progress import BuildProgress

__all__ = ["Built", "Log", "new_runtime", "serialize"]

SHOWN = 5  # parser errors in one message


class Log(trt.ILogger):
    """Keeps what TensorRT logs as errors, for our own messages; prints nothing."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        """Called by TensorRT."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(" ".join(message.split()))

    def last(self) -> str:
        """The last error in brackets, to append to a message; "" where there was none."""
        return f" ({self.errors[-1][:300]})" if self.errors else ""


class Monitor(trt.IProgressMonitor):
    """Hands the builder's progress on. No exception may leave it: it is called from C++."""

    def __init__(self, progress: BuildProgress) -> None:
        trt.IProgressMonitor.__init__(self)
        self.progress = progress

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Called by TensorRT."""
        try:
            self.progress.start(phase_name, parent_phase, num_steps)
        except KeyboardInterrupt:
            self.progress.stopped = True

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Called by TensorRT; False asks it to end the build."""
        try:
            return self.progress.step(phase_name, step)
        except KeyboardInterrupt:
            self.progress.stopped = True
            return False

    def phase_finish(self, phase_name: str) -> None:
        """Called by TensorRT."""
        try:
            self.progress.finish(phase_name)
        except KeyboardInterrupt:
            self.progress.stopped = True


@dataclass(frozen=True)
class Built:
    """What the builder made.

    Attributes:
        plan: the serialized engine, anything with the buffer protocol.
        timing_cache: its measurements of kernels, for the next build; b"" where there are none.
        layers: the inspector's JSON about every layer.
    """

    plan: trt.IHostMemory
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
    log = Log()
    try:
        builder: trt.Builder = trt.Builder(log)
    except TypeError as error:  # the binding's words for a builder that could not be made
        raise ExportError(f"TensorRT {trt.__version__} cannot start its builder{log.last()}") from error
    # in 10 one of two kinds, in 11 the only one
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: trt.INetworkDefinition = builder.create_network(strongly_typed)
    parser: trt.OnnxParser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        raise ExportError(f"TensorRT {trt.__version__} cannot read {path}: {_why(parser)}")
    config: trt.IBuilderConfig = builder.create_builder_config()
    _configure(config, options)
    profile: trt.IOptimizationProfile = builder.create_optimization_profile()
    for name, (least, usual, largest) in shapes.items():
        profile.set_shape(name, tuple(least), tuple(usual), tuple(largest))
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"TensorRT refuses the profile of {path}: {shapes}{log.last()}")
    cache: trt.ITimingCache = config.create_timing_cache(timing_cache)
    if not config.set_timing_cache(cache, False):
        # measured on another GPU or by another release: begin anew rather than trust it
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    config.progress_monitor = Monitor(progress)
    plan: trt.IHostMemory | None = builder.build_serialized_network(network, config)
    if progress.stopped:
        raise KeyboardInterrupt
    if plan is None:
        raise ExportError(f"TensorRT {trt.__version__} cannot build {path}{log.last()}")
    return Built(plan, bytes(cache.serialize()), _layers(plan, log, options.version_compatible))


def _configure(config: trt.IBuilderConfig, options: BuildOptions) -> None:
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
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector tells names only


def _why(parser: trt.OnnxParser) -> str:
    """All the parser's errors in one line, each with the node it is about."""
    texts = []
    for k in range(parser.num_errors):
        error: trt.ParserError = parser.get_error(k)
        node, operator = error.node_name, error.node_operator
        place = f"{operator} {node!r}: " if operator or node else ""
        texts.append(place + " ".join(error.desc.split())[:200])
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more if texts else "it says not why"


def _layers(plan: trt.IHostMemory, log: Log, version_compatible: bool) -> str:
    runtime: trt.Runtime = new_runtime(log, version_compatible)
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ExportError(f"TensorRT cannot load the engine it built{log.last()}")
    inspector: trt.EngineInspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def new_runtime(log: Log, version_compatible: bool) -> trt.Runtime:
    """What loads engines; a version-compatible one carries its own runtime, code that must be allowed to run.

    Raises:
        ExportError: TensorRT cannot start.
    """
    try:
        runtime: trt.Runtime = trt.Runtime(log)
    except TypeError as error:  # the binding's words for a runtime that could not be made
        raise ExportError(f"TensorRT {trt.__version__} cannot start its runtime{log.last()}") from error
    runtime.engine_host_code_allowed = version_compatible
    return runtime
