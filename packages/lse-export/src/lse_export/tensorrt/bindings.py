"""TensorRT's Python module of one flavour, with our logger and progress monitor for it.

The flavours are separate modules with the same classes, so what derives from these is made for each.
Variables that hold TensorRT objects are annotated, here and wherever TensorRT is called, so that a test can
look up every name used in every known release.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lse_export.errors import ExportError
from lse_export.tensorrt.library import flavour_of, require_tensorrt
from lse_export.tensorrt.progress import BuildProgress

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Bindings", "load", "new_runtime"]


@dataclass(frozen=True)
class Bindings:
    """One flavour of TensorRT, ready to use.

    Attributes:
        title: flavour and release for people, such as "TensorRT 10.16.1.11".
        trt: the module.
        Log: a logger, made without arguments: `errors` holds what was logged as such, `layers` the account of
            an engine's layers that TensorRT for RTX logs, and `last()` the last error in brackets.
        Monitor: a progress monitor that tells the `BuildProgress` it is made with.
    """

    title: str
    trt: Any
    Log: type[Any]
    Monitor: type[Any]


def load(flavour: str = "tensorrt") -> Bindings:
    """Import a flavour.

    Raises:
        ExportError: it is not installed, does not load or is of another major release.
        UnknownNameError: no such flavour.
    """
    require_tensorrt(flavour)
    wanted = flavour_of(flavour)
    return _bind(import_module(wanted.module), wanted.title)


@cache
def _bind(trt: Any, title: str) -> Bindings:
    class Log(trt.ILogger):  # type: ignore[name-defined]
        """Keeps what TensorRT logs, for our own messages; prints nothing. No exception may leave it."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: tensorrt.ILogger.Severity, message: str) -> None:
            """Called by TensorRT."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))
            elif message.startswith("Layers:"):
                self.layers = message

        def last(self) -> str:
            """The last error in brackets, to append to a message; "" where there was none."""
            return f" ({self.errors[-1][:300]})" if self.errors else ""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
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

    return Bindings(f"{title} {trt.__version__}", trt, Log, Monitor)


def new_runtime(found: Bindings, log: Any, host_code: bool = False) -> tensorrt.Runtime:
    """What loads engines.

    Args:
        found: the flavour.
        log: a `found.Log`.
        host_code: allow an engine to run the code it carries; version-compatible engines carry their runtime.

    Raises:
        ExportError: TensorRT cannot start.
    """
    trt = found.trt
    try:
        runtime: tensorrt.Runtime = trt.Runtime(log)
    except TypeError as error:  # the binding's words for a runtime that could not be made
        raise ExportError(f"{found.title} cannot start its runtime{log.last()}") from error
    if host_code:
        runtime.engine_host_code_allowed = True
    return runtime
