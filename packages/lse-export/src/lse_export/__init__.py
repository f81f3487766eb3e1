"""Adapted models to ONNX, ONNX Runtime and TensorRT: solvers unrolled, results verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names
from lse_core.moved import announce_file

if TYPE_CHECKING:
    from lse_export.bench import latency_ratio
    from lse_export.errors import ExportError, VerificationError
    from lse_export.gate import GateReport, check
    from lse_export.steps import StepChoice, choose_steps
    from lse_export.tensorrt import Engine, build_engine
    from lse_export.to_onnx import OnnxExport, export_onnx
    from lse_export.triton import TritonModel, write_triton
    from lse_export.verification import Verification, verify

__version__ = "0.1.0"

_HOMES = {
    "bench": ["latency_ratio"],
    "errors": ["ExportError", "VerificationError"],
    "gate": ["GateReport", "check"],
    "steps": ["StepChoice", "choose_steps"],
    "tensorrt": ["Engine", "build_engine"],
    "to_onnx": ["OnnxExport", "export_onnx"],
    "triton": ["TritonModel", "write_triton"],
    # not `verify.py`: importing a submodule of that name would hide the function
    "verification": ["Verification", "verify"],
}

__all__ = [
    "Engine",
    "ExportError",
    "GateReport",
    "OnnxExport",
    "StepChoice",
    "TritonModel",
    "Verification",
    "VerificationError",
    "build_engine",
    "check",
    "choose_steps",
    "export_onnx",
    "latency_ratio",
    "verify",
    "write_triton",
]

announce_file(Path(__file__).with_name("moved.toml"))
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
