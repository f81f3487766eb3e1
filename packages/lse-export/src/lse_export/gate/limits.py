"""What a target takes of an operator it knows: rules that read their numbers from the target's tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from lse_export.gate.graph import Model, attribute
from lse_export.gate.problem import Problem, Rule, at, nodes_of
from lse_export.gate.tables import Bound, Table

__all__ = ["LIMITS"]


def attributes(model: Model, table: Table) -> Iterator[Problem]:
    """Attributes must have values that the target takes: the `limit` entries of its table."""
    for limit in table.limits:
        for node in nodes_of(model, *limit.operators):
            value = attribute(node, limit.attribute, None)
            if value is not None and value not in limit.values:
                yield at(
                    "attribute", node, f"{limit.attribute} = {value!r}, unknown to {table.name}", limit.fix
                )  # fmt: skip


def numbers(model: Model, table: Table) -> Iterator[Problem]:
    """Numbers written in the file must be those that the target takes: the `bound` entries of its table."""
    for bound in table.bounds:
        for node in nodes_of(model, *bound.operators):
            if bound.modes and attribute(node, "mode", "nearest") not in bound.modes:
                continue
            wrong = _beyond(model, node, bound)
            if wrong is not None:
                what = f"its input {bound.input} holds {wrong:g}, which {table.name} refuses"
                yield at("number", node, what, bound.fix)


def _beyond(model: Model, node: onnx.NodeProto, bound: Bound) -> float | None:
    """The first number that the target does not take."""
    name = node.input[bound.input] if len(node.input) > bound.input else ""
    found = model.value(name) if name else None
    if found is None:
        return None
    values = np.ravel(found).astype(float)
    allowed = bound.values
    if bound.index is not None:
        place = _place(node, bound.index)
        if place is None or place >= values.size:
            return None
        values = values[place : place + 1]
    if bound.same_as_input:
        sizes = model.shapes.get(node.input[0], [])
        size = sizes[bound.index or 0] if len(sizes) > (bound.index or 0) else None
        allowed = () if size is None else (size,)
    good = np.ones(values.shape, dtype=bool)
    if allowed:
        good &= np.isin(values, allowed)
    if bound.above is not None:
        good &= values > bound.above
    if bound.largest is not None:
        good &= values <= bound.largest
    return None if good.all() else float(values[~good][0])


def _place(node: onnx.NodeProto, axis: int) -> int | None:
    """Where numbers by axis hold that of `axis`: nodes with an attribute "axes" list those alone."""
    axes = attribute(node, "axes", None)
    if not isinstance(axes, list):
        return axis
    return axes.index(axis) if axis in axes else None


def refused(model: Model, table: Table) -> Iterator[Problem]:
    """Operators that the target knows by name and cannot build: the `refused` entries of its table."""
    for entry in table.refused:
        for node in nodes_of(model, *entry.operators):
            yield at("refused", node, entry.what, entry.fix)


def inputs(model: Model, table: Table) -> Iterator[Problem]:
    """The graph's own inputs must have types that the target takes."""
    weights = {tensor.name for tensor in model.initializers}
    for value in model.proto.graph.input:
        found = model.types.get(value.name, "unknown")
        if table.inputs and value.name not in weights and found not in (*table.inputs, "unknown"):
            what = f"an input of {found}, but {table.name} takes {', '.join(table.inputs)}"
            yield Problem("input", value.name, "", what, "give it another type, and cast in the graph")


LIMITS: tuple[Rule, ...] = (attributes, numbers, refused, inputs)
"""Rules that need a table with limits, in the order in which they are reported."""
