"""The gate: will a runtime take this ONNX file? Works on anybody's file, ours included."""

from lse_export.gate.report import GateReport, Problem
from lse_export.gate.rules import check
from lse_export.gate.tables import TARGETS

__all__ = ["TARGETS", "GateReport", "Problem", "check"]
