"""ONNX Runtime sessions that say what really runs: a provider that falls back silently is an error here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lse_core.errors import unknown_name
from lse_export.errors import ExportError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["PROVIDERS", "open_session", "run"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Execution providers by short name."""


def open_session(
    path: str | Path, provider: str = "cpu", *, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """Load an ONNX file; `session.get_providers()` then begins with the provider that was asked for.

    Args:
        path: an ONNX file.
        provider: a key of `PROVIDERS`.
        threads: threads within an operator on CPU; None leaves the choice to ONNX Runtime.

    Raises:
        ExportError: no such file, not an ONNX model that ONNX Runtime can run, or the provider is not
            to be had (ONNX Runtime itself would go on with the CPU).
        UnknownNameError: no such provider.
    """
    import onnxruntime as ort

    path = Path(path)
    if provider not in PROVIDERS:
        raise unknown_name("provider", provider, PROVIDERS)
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors reach us as exceptions; its warnings are for its developers
    if threads is not None:
        options.intra_op_num_threads = threads
    wanted = PROVIDERS[provider]
    if wanted not in ort.get_available_providers():
        known = ", ".join(n for n, full in PROVIDERS.items() if full in ort.get_available_providers())
        raise ExportError(
            f"ONNX Runtime {ort.__version__} has no provider {provider!r} here; it has: {known}"
        )
    # what it logs about libraries it misses is said below, in one line
    ort.set_default_logger_severity(4)
    try:
        session = ort.InferenceSession(str(path), options, providers=[wanted])
    except Exception as error:  # its exceptions share no base class
        text = " ".join(str(error).split())
        raise ExportError(f"{path}: ONNX Runtime cannot load it ({text[:240]})") from error
    finally:
        ort.set_default_logger_severity(2)  # its default
    if session.get_providers()[0] != wanted:
        raise ExportError(
            f"ONNX Runtime fell back to {session.get_providers()[0]}: provider {provider!r} could not start "
            "(a driver or library it needs is missing)"
        )
    return session


def run(session: onnxruntime.InferenceSession, image: Tensor) -> dict[str, Tensor]:
    """Run a one-input session on a tensor (copied to CPU); outputs by name, on CPU."""
    first = session.get_inputs()[0]
    array = image.detach().cpu().numpy().astype(_dtype(first.type), copy=False)
    results: list[Any] = session.run(None, {first.name: np.ascontiguousarray(array)})
    names = [output.name for output in session.get_outputs()]
    return {name: torch.from_numpy(np.asarray(r)) for name, r in zip(names, results, strict=True)}


def _dtype(name: str) -> type[np.floating]:
    types: dict[str, type[np.floating]] = {
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
        "tensor(double)": np.float64,
    }
    if name not in types:
        raise ExportError(f"the file's input is {name}, not a tensor of floating images")
    return types[name]
