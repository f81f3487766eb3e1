"""Adapted models to ONNX, ONNX Runtime and TensorRT: solvers unrolled, results verified."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lse_export.errors import ExportError, VerificationError
    from lse_export.gate import GateReport, check
    from lse_export.latency import LatencyRatio, latency_ratio
    from lse_export.steps import StepChoice, choose_steps
    from lse_export.to_onnx import OnnxExport, export_onnx
    from lse_export.triton import TritonModel, write_triton
    from lse_export.verification import Verification, verify

__version__ = "0.1.0"

_HOMES = {
    "errors": ["ExportError", "VerificationError"],
    "gate": ["GateReport", "check"],
    "latency": ["LatencyRatio", "latency_ratio"],
    "steps": ["StepChoice", "choose_steps"],
    "to_onnx": ["OnnxExport", "export_onnx"],
    "triton": ["TritonModel", "write_triton"],
    # not `verify.py`: importing a submodule of that name would hide the function
    "verification": ["Verification", "verify"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ExportError",
    "GateReport",
    "LatencyRatio",
    "OnnxExport",
    "StepChoice",
    "TritonModel",
    "Verification",
    "VerificationError",
    "check",
    "choose_steps",
    "export_onnx",
    "latency_ratio",
    "verify",
    "write_triton",
]


def __getattr__(name: str) -> Any:
    # loaded when first used: the command line's help must not wait for torch and onnx
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lse_export' has no attribute {name!r}")
    value = getattr(import_module(f"lse_export.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
