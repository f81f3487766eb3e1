"""Running the rules."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lse_export.gate.graph import open_model
from lse_export.gate.problem import Problem
from lse_export.gate.rules import rules_for
from lse_export.gate.tables import load_table

__all__ = ["GateReport", "check"]


@dataclass(frozen=True)
class GateReport:
    """What the gate found.

    Attributes:
        path: the file.
        target: the target's name.
        source: the support table's source.
        date: the support table's date.
        opset: the file's opset.
        nodes: how many nodes were looked at.
        problems: what was found, in the order of the rules.
        parser: the target's own parser that was asked beside the rules, such as "TensorRT for RTX 1.7.1.116";
            "" where none was.
    """

    path: Path
    target: str
    source: str
    date: str
    opset: int
    nodes: int
    problems: list[Problem]
    parser: str = ""

    @property
    def ok(self) -> bool:
        """Whether there are no errors; warnings do not count."""
        return not any(problem.severity == "error" for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "path": str(self.path), "ok": self.ok}


def check(path: str | Path, target: str = "onnxruntime") -> GateReport:
    """Say whether a runtime will take an ONNX file, whoever made it, and name the node where not.

    The answer rests on a support table (its source and date are in the report) and on known traps;
    nothing is built or run.

    Args:
        path: an ONNX file.
        target: "tensorrt10", "tensorrt11", "tensorrt-rtx", "onnxruntime" or "web".

    Raises:
        ExportError: the file is absent, truncated or no ONNX model.
        UnknownNameError: no such target.
    """
    table = load_table(target)
    model = open_model(Path(path))
    problems = [problem for rule in rules_for(table) for problem in rule(model, table)]
    return GateReport(model.path, target, table.source, table.date, model.opset, len(model.nodes), problems)
