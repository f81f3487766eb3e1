"""The gate: will a runtime take this ONNX file? Works on anybody's file, ours included."""

from __future__ import annotations

from lse_export.gate.checker import GateReport, check
from lse_export.gate.problem import Problem
from lse_export.gate.tables import TARGETS

__all__ = ["TARGETS", "GateReport", "Problem", "check"]
