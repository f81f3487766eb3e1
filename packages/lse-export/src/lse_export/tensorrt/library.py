"""TensorRT's Python module of one flavour: found, imported, and with our logger and progress monitor for it.

The flavours are separate modules with the same classes, so the classes that derive from theirs are made for
each. Variables that hold TensorRT objects are annotated, here and wherever TensorRT is called, so that a test
can look up every name used in every known release.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from lse_core.errors import unknown_name
from lse_core.progress import Bar, Bars
from lse_export.errors import ExportError, first_line

if TYPE_CHECKING:
    import tensorrt

T = TypeVar("T")


@contextmanager
def interrupts(note: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Around a call of TensorRT: Ctrl-C and SIGTERM call `note`, and take effect when the block ends.

    An exception could come up in our logger or monitor, which C++ calls and through which none may pass.
    Python delivers signals to its main thread only, so in any other thread nothing is done.
    """
    came: list[int] = []

    def keep(number: int, frame: object) -> None:
        came.append(number)
        note()

    alone = threading.current_thread() is not threading.main_thread()
    caught = [n for n in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(n))]
    earlier = {n: signal.signal(n, keep) for n in (() if alone else caught)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


class BuildProgress(Bars):
    """One bar for each level of the phases that are under way; a context manager like `Bars`.

    Attributes:
        stopped: whether the user interrupted the build, which then ends at its next step.
    """

    def __init__(self, *, hidden: bool = False) -> None:
        super().__init__(hidden=hidden)
        self.stopped = False
        self._levels: list[Bar] = []
        self._depths: dict[str, int] = {}

    def stop(self) -> None:
        """Ask the builder to end."""
        self.stopped = True

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins within `parent`."""
        depth = self._depths[phase] = self._depths.get(parent or "", -1) + 1
        if depth == len(self._levels):
            self._levels.append(self.add(""))
        self._levels[depth].restart("  " * depth + phase)
        self._levels[depth].update(0, steps)

    def step(self, phase: str, step: int) -> bool:
        """Step number `step`, from 0, is done; returns whether to go on."""
        if phase in self._depths:
            self._levels[self._depths[phase]].update(step + 1)
        return not self.stopped

    def finish(self, phase: str) -> None:
        """A phase ends, whether or not all its steps were done."""
        self._depths.pop(phase, None)


@dataclass(frozen=True)
class Flavour:
    """A product line of TensorRT.

    Attributes:
        name: a key of `FLAVOURS`, and the extra of lse-export that installs it.
        title: its name for people.
        module: its Python module.
        majors: major releases that the code is written for.
    """

    name: str
    title: str
    module: str
    majors: tuple[int, ...]

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'lse-export[{self.name}]'"


FLAVOURS = {
    "tensorrt": Flavour("tensorrt", "TensorRT", "tensorrt", (10, 11)),
    "rtx": Flavour("rtx", "TensorRT for RTX", "tensorrt_rtx", (1,)),
}
"""By name. An engine of one flavour cannot be loaded by the other."""


@dataclass(frozen=True)
class Bindings:
    """One flavour of TensorRT, ready to use.

    Attributes:
        flavour: which one.
        trt: the module.
        Log: a logger, made without arguments: `errors` holds the errors logged, `layers` the account
            of an engine's layers that TensorRT for RTX logs, and `last()` the last error in brackets.
        Monitor: a progress monitor that tells the `BuildProgress` it is made with.
    """

    flavour: Flavour
    trt: Any
    Log: type[Any]
    Monitor: type[Any]

    @property
    def version(self) -> str:
        """The release, such as "10.16.1.11", or "1.7.1.116" of TensorRT for RTX."""
        return str(self.trt.__version__)

    @property
    def title(self) -> str:
        """Flavour and release for people, such as "TensorRT 10.16.1.11"."""
        return f"{self.flavour.title} {self.version}"


def flavour_of(name: str) -> Flavour:
    """The flavour called `name`; UnknownNameError for any other."""
    if name not in FLAVOURS:
        raise unknown_name("flavour of TensorRT", name, FLAVOURS)
    return FLAVOURS[name]


def load(name: str = "tensorrt") -> Bindings:
    """Import the flavour called `name`.

    Raises:
        ExportError: it is not installed, does not load, or is of a major release that is not supported.
        UnknownNameError: no flavour has this name.
    """
    wanted = flavour_of(name)
    if find_spec(wanted.module) is None:
        raise ExportError(f"{wanted.title} is not installed: {wanted.install}")
    try:
        trt = import_module(wanted.module)
        version = str(trt.__version__)
    except (ImportError, OSError, AttributeError) as error:  # its libraries are missing or do not match
        raise ExportError(f"{wanted.title} is installed but does not load ({first_line(error)})") from error
    if major_of(version) not in wanted.majors:
        majors = " or ".join(map(str, wanted.majors))
        raise ExportError(f"{wanted.title} {version} is installed, but release {majors} is needed")
    return _bind(trt, wanted)


@cache
def _bind(trt: Any, flavour: Flavour) -> Bindings:
    class Log(trt.ILogger):  # type: ignore[name-defined]
        """Keeps what TensorRT logs, for our own messages; prints nothing. No exception may leave it."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: tensorrt.ILogger.Severity, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))
            elif message.startswith("Layers:"):
                self.layers = message

        def last(self) -> str:
            """The last error in brackets, to append to a message; "" where there was none."""
            return f" ({self.errors[-1][:300]})" if self.errors else ""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        """Hands the builder's progress on. No exception may leave it: TensorRT calls it from C++."""

        def __init__(self, progress: BuildProgress) -> None:
            trt.IProgressMonitor.__init__(self)
            self.progress = progress

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return self.progress.step(phase_name, step)  # False asks TensorRT to end the build

        def phase_finish(self, phase_name: str) -> None:
            self.progress.finish(phase_name)

    return Bindings(flavour, trt, Log, Monitor)


def need(given: T | None, log: Any, text: str) -> T:
    """What TensorRT gave; ExportError, `text` and the last words of `log`, where that is None or False."""
    if given is None or given is False:
        raise ExportError(f"{text}{log.last()}")
    return given


def new_runtime(found: Bindings, log: Any, host_code: bool = False) -> tensorrt.Runtime:
    """Make the object that loads engines.

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
    except TypeError as error:  # the binding raises it for a runtime that could not be made
        raise ExportError(f"{found.title} cannot start its runtime{log.last()}") from error
    if host_code:
        runtime.engine_host_code_allowed = True
    return runtime


def major_of(version: str) -> int:
    """Major release of a version; 0 where it cannot be read."""
    first = version.split(".")[0]
    return int(first) if first.isdigit() else 0


def require_gpu(device: torch.device | str | None = None, hint: str = "") -> torch.device:
    """Return the CUDA device asked for with its index; None means torch's current one.

    Where there is no GPU, `hint` is appended to the error.

    Raises:
        ExportError: there is no such device, or no GPU at all.
    """
    if not torch.cuda.is_available():
        raise ExportError(f"TensorRT needs an NVIDIA GPU, but torch finds none{hint}")
    found = torch.device("cuda" if device is None else device)
    if found.type != "cuda":
        raise ExportError(f"TensorRT runs on CUDA devices only; got {str(found)!r}")
    index = torch.cuda.current_device() if found.index is None else found.index
    if index >= torch.cuda.device_count():
        raise ExportError(f"there is no device {str(found)!r}; torch finds {torch.cuda.device_count()}")
    return torch.device("cuda", index)
