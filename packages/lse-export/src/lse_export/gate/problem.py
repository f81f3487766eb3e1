"""What a rule finds, and what rules share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import onnx

from lse_export.gate.graph import Model, label
from lse_export.gate.tables import Table

__all__ = ["Problem", "Rule", "at", "nodes_of"]


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
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"{self.op} {self.node!r}: " if self.op else f"{self.node!r}: " if self.node else ""
        return f"{self.severity} [{self.rule}] {place}{self.what}; {self.fix}"


Rule = Callable[[Model, Table], Iterator[Problem]]
"""Looks at a model for a target."""


def nodes_of(model: Model, *operators: str) -> Iterator[onnx.NodeProto]:
    """Nodes of these operators of the standard domain."""
    return (node for node in model.nodes if node.op_type in operators and node.domain in ("", "ai.onnx"))


def at(
    rule: str, node: onnx.NodeProto, what: str, fix: str, severity: Literal["error", "warning"] = "error"
) -> Problem:
    """A problem of one node."""
    return Problem(rule, label(node), node.op_type, what, fix, severity)
