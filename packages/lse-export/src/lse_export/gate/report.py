"""What the rules find in a file, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from lse_export.gate.graph import Model, label
from lse_export.gate.tables import Table, fixes

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing a target will not take, or takes wrongly.

    Attributes:
        rule: name of the rule that found it.
        node: name of the node or tensor; "" where it is the file as a whole.
        op: the node's operator, or "".
        what: what is wrong.
        fix: what to do about it.
        severity: "error" where the file will fail or compute something else; "warning" where it may.
    """

    rule: str
    node: str
    op: str
    what: str
    fix: str
    severity: Severity = "error"

    @property
    def place(self) -> str:
        """The node and its operator, to begin a message with; "" where it is the file as a whole."""
        return f"{self.op} {self.node!r}: " if self.op else f"{self.node!r}: " if self.node else ""

    def __str__(self) -> str:
        return f"{self.severity} [{self.rule}] {self.place}{self.what}; {self.fix}"


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


Rule = Callable[[Model, Table], Iterator[Problem]]
"""Looks at a model for a target."""


def nodes_of(model: Model, *operators: str) -> Iterator[onnx.NodeProto]:
    """Nodes of these operators of the standard domain."""
    return (node for node in model.nodes if node.op_type in operators and node.domain in ("", "ai.onnx"))


WARNINGS = ("control-flow", "saturation", "half-grid-sample")
"""Rules whose problems may do no harm."""


def at(rule: str, node: onnx.NodeProto | str, what: str, fix: str = "") -> Problem:
    """A problem of a node, or of something that only has a name; `fix` replaces that of the rule."""
    name, op = (node, "") if isinstance(node, str) else (label(node), node.op_type)
    severity: Severity = "warning" if rule in WARNINGS else "error"
    return Problem(rule, name, op, what, fix or fixes()[rule], severity)
