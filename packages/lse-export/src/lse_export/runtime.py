"""ONNX Runtime sessions that say what really runs: a provider that falls back silently is an error here."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lse_core.errors import LSEError, unknown_name
from lse_core.moved import moved_names
from lse_export.errors import ExportError

if TYPE_CHECKING:
    import onnxruntime

    from lse_export.tensorrt.sidecar import Shapes

__all__ = ["PROVIDERS", "TensorrtOptions", "open_session", "ran_on", "run"]
__getattr__ = moved_names(__name__)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Execution providers by short name."""

# inputs that hold images; uint8 for files that prepare raw pictures
_TYPES = {"float": "float32", "float16": "float16", "double": "float64", "uint8": "uint8"}


@dataclass(frozen=True)
class TensorrtOptions:
    """How ONNX Runtime's TensorRT provider builds engines.

    Attributes:
        cache: folder in which engines and kernel timings are kept for the next session.
        profile: least, usual and largest shape of every input, see `lse_export.tensorrt.sidecar`; None lets
            the provider build again whenever a shape leaves what it has seen.
        fp16: let it compute float32 layers in half precision.
    """

    cache: Path | None = None
    profile: Shapes | None = None
    fp16: bool = False

    def as_provider(self) -> dict[str, str]:
        """The same by ONNX Runtime's names."""
        options = {"trt_fp16_enable": "1"} if self.fp16 else {}
        for kind in ("engine", "timing") if self.cache is not None else ():
            options |= {f"trt_{kind}_cache_enable": "1", f"trt_{kind}_cache_path": str(self.cache)}
        for k, name in enumerate(("min", "opt", "max") if self.profile else ()):
            options[f"trt_profile_{name}_shapes"] = ",".join(
                f"{tensor}:{'x'.join(map(str, shapes[k]))}" for tensor, shapes in (self.profile or {}).items()
            )
        return options


def open_session(
    path: str | Path,
    provider: str = "cpu",
    *,
    threads: int | None = None,
    tensorrt: TensorrtOptions | None = None,
    trace: Path | None = None,
    precise: bool = False,
) -> onnxruntime.InferenceSession:
    """Load an ONNX file; `session.get_providers()` then begins with the provider that was asked for.

    That says what the session may use; `ran_on` says where its nodes ran.

    Args:
        path: an ONNX file.
        provider: a key of `PROVIDERS`. "tensorrt" leaves what TensorRT does not take to CUDA.
        threads: threads within an operator on CPU; None leaves the choice to ONNX Runtime.
        tensorrt: for the provider of that name, and for no other.
        trace: prefix of a file to write the profiler's trace to.
        precise: on x86 CPUs without VNNI, multiply eight bits by slower kernels whose sums cannot overflow.

    Raises:
        ExportError: no such file, not an ONNX model that ONNX Runtime can run, or the provider is not
            to be had (ONNX Runtime itself would go on with the CPU).
        UnknownNameError: no such provider.
        LSEError: options of TensorRT for another provider.
    """
    import onnxruntime as ort

    path = Path(path)
    if provider not in PROVIDERS:
        raise unknown_name("provider", provider, PROVIDERS)
    if tensorrt is not None and provider != "tensorrt":
        raise LSEError(f"options of TensorRT were given, but the provider is {provider!r}; choose tensorrt")
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors reach us as exceptions; its warnings are for its developers
    if threads is not None:
        options.intra_op_num_threads = threads
    if trace is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(trace)
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    wanted = PROVIDERS[provider]
    if wanted not in ort.get_available_providers():
        known = ", ".join(n for n, full in PROVIDERS.items() if full in ort.get_available_providers())
        raise ExportError(
            f"ONNX Runtime {ort.__version__} has no provider {provider!r} here; it has: {known}"
        )
    asked: list[Any] = [wanted]
    if provider == "tensorrt":
        if tensorrt is not None and tensorrt.cache is not None:
            tensorrt.cache.mkdir(parents=True, exist_ok=True)
        asked = [(wanted, (tensorrt or TensorrtOptions()).as_provider()), PROVIDERS["cuda"]]
        with suppress(ImportError, OSError):
            import_module("tensorrt")  # brings its libraries into the process, where the provider finds them
    try:
        # its own fallback would print pages and go on with the CPU, when loading and at every run
        session = ort.InferenceSession(str(path), options, providers=asked, enable_fallback=0)
    except RuntimeError as error:  # raised for providers; files that cannot be read have other classes
        raise ExportError(f"ONNX Runtime cannot start provider {provider!r} ({_plain(error)})") from error
    except Exception as error:  # its exceptions share no base class
        raise ExportError(f"{path}: ONNX Runtime cannot load it ({_plain(error)})") from error
    if session.get_providers()[0] != wanted:
        raise ExportError(
            f"ONNX Runtime fell back to {session.get_providers()[0]}: provider {provider!r} could not start, "
            "because a driver or library is missing that ONNX Runtime names above"
        )
    return session


def ran_on(
    path: str | Path, image: Tensor, provider: str = "cpu", *, tensorrt: TensorrtOptions | None = None
) -> Counter[str]:
    """Run once and count by execution provider the nodes that really ran there, from the profiler's trace.

    A session's list of providers holds those it may use; nodes that the first does not take run on others.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(path, provider, tensorrt=tensorrt, trace=Path(folder) / "trace")
        run(session, image)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    nodes = {
        (event["name"], event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    }
    return Counter(name for _, name in nodes)


def run(session: onnxruntime.InferenceSession, image: Tensor) -> dict[str, Tensor]:
    """Run a one-input session on a tensor (copied to CPU); outputs by name, on CPU.

    Raises:
        ExportError: the file has another number of inputs, takes no images, or stops on these.
    """
    takes = session.get_inputs()
    if len(takes) != 1:
        raise ExportError(f"the file has {len(takes)} inputs, not one of images")
    first = takes[0]
    kind = _TYPES.get(first.type.removeprefix("tensor(").removesuffix(")"))
    if kind is None:
        raise ExportError(f"the file's input is {first.type}, not a tensor of images")
    array = image.detach().cpu().numpy().astype(kind, copy=False)
    try:
        results: list[Any] = session.run(None, {first.name: np.ascontiguousarray(array)})
        tensors = [torch.from_numpy(np.asarray(result)) for result in results]
    except Exception as error:  # its exceptions share no base class; torch refuses text and lists
        shape = list(image.shape)
        raise ExportError(f"ONNX Runtime cannot run the file on {shape} ({_plain(error)})") from error
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, tensors, strict=True))


def _plain(error: Exception) -> str:
    """What ONNX Runtime says, in one line, without the place in its source."""
    return re.sub(r"^.*\.cc:\d+ .*?\) ", "", " ".join(str(error).split()))[:240]
