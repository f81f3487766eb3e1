"""What can be wrong with a file for a target: one function a rule, each yielding the problems it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import onnx

from lse_export.gate.graph import Model, attribute, label
from lse_export.gate.tables import Table

__all__ = ["RULES", "Problem"]


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


def valid(model: Model, table: Table) -> Iterator[Problem]:
    """The file must be valid ONNX: onnx.checker with full shape inference."""
    try:
        onnx.checker.check_model(str(model.path), full_check=True)
    except Exception as error:  # the checker and the inference raise classes of their own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[0][:240] if lines else type(error).__name__
        yield Problem("valid", "", "", f"not valid ONNX ({text})", "export the model again")


def opset(model: Model, table: Table) -> Iterator[Problem]:
    """The opset must be one the target reads."""
    first, last = table.opsets
    if not first <= model.opset <= last:
        yield Problem(
            "opset", "", "", f"opset {model.opset}, but {table.name} reads {first} to {last}",
            "export with another opset, or convert with onnx.version_converter",
        )  # fmt: skip


def operators(model: Model, table: Table) -> Iterator[Problem]:
    """Every operator must be in the target's table, or a local function of the file."""
    for node in model.nodes:
        if (node.domain, node.op_type) in model.functions:
            continue
        if node.domain not in ("", "ai.onnx"):
            if node.domain not in table.domains:
                yield _at(
                    "domain", node, f"operators of domain {node.domain!r} are unknown to {table.name}",
                    "use standard operators, or a plugin of the target",
                )  # fmt: skip
        elif node.op_type not in table.types:
            yield _at(
                "operator", node, f"{table.name} has no such operator (table of {table.date})",
                "write the model with other operators",
            )  # fmt: skip


# operators whose data is not their first input
_DATA = {"Where": 1, "OneHot": 2}
_BY_OUTPUT = {"Constant", "ConstantOfShape", "Cast", "RandomNormal", "RandomUniform", "EyeLike"}


def types(model: Model, table: Table) -> Iterator[Problem]:
    """An operator's data must be of a type the target computes with."""
    for node in model.nodes:
        known = table.types.get(node.op_type)
        if known is None or node.domain not in ("", "ai.onnx"):
            continue
        k = _DATA.get(node.op_type, 0)
        names = node.output if node.op_type in _BY_OUTPUT or len(node.input) <= k else node.input[k : k + 1]
        for name in names:
            found = model.types.get(name, "unknown")
            # doubles have a rule of their own
            if found not in (*known, "unknown", "float64"):
                yield _at(
                    "type", node, f"{found} data, but {table.name} takes {', '.join(sorted(known))}",
                    "cast it before this node",
                )  # fmt: skip


def doubles(model: Model, table: Table) -> Iterator[Problem]:
    """TensorRT turns float64 into float32 and clamps it, without a word."""
    if not table.is_tensorrt:
        return
    wide = {name for name, kind in model.types.items() if kind == "float64"}
    for node in model.nodes:
        if wide.intersection([*node.input, *node.output]):
            yield _at(
                "double", node, f"float64 tensors; {table.name} computes them in float32",
                "export the model in float32",
            )  # fmt: skip
            return  # where one is, hundreds are: the first says enough


# operators whose listed inputs must agree in type
_UNIFORM = {"Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Conv", "ConvTranspose", "Concat", "Min", "Max",
            "Sum", "Mean", "Equal", "Less", "Greater", "PRelu"}  # fmt: skip


def mixed(model: Model, table: Table) -> Iterator[Problem]:
    """Inputs of an arithmetic operator must have one type; strongly typed builds do not convert."""
    for node in model.nodes:
        if node.op_type in _UNIFORM and node.domain in ("", "ai.onnx"):
            kinds = sorted({model.types[n] for n in node.input if n in model.types} - {"unknown"})
            if len(kinds) > 1:
                yield _at("mixed", node, f"inputs of {' and '.join(kinds)}", "cast them to one type")


def grid_sample(model: Model, table: Table) -> Iterator[Problem]:
    """GridSample since opset 20 says "linear" where TensorRT expects "bilinear", and reads as nearest.

    NVIDIA/TensorRT issue 4646, onnx/onnx-tensorrt pull request 1060.
    """
    if not table.is_tensorrt:
        return
    for node in _all(model, "GridSample"):
        mode = attribute(node, "mode", "linear" if model.opset >= 20 else "bilinear")
        if model.opset >= 20 and mode != "nearest":
            yield _at(
                "grid-sample", node, f"mode {mode!r} of opset {model.opset} is read as nearest-neighbour",
                "export with an opset below 20, or warp by matrix products as lse_core does",
            )  # fmt: skip


_RESIZE_MODES = ("nearest", "linear")
_RESIZE_FRAMES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")


def resize(model: Model, table: Table) -> Iterator[Problem]:
    """Resize with antialiasing, by cubics or in unusual frames."""
    if not table.is_tensorrt:
        return
    for node in _all(model, "Resize"):
        if attribute(node, "antialias", 0):
            yield _at("resize", node, "antialiasing", "resize without it, or by a constant matrix")
        if (mode := attribute(node, "mode", "nearest")) not in _RESIZE_MODES:
            yield _at("resize", node, f"mode {mode!r}", f"use {' or '.join(_RESIZE_MODES)}")
        frame = attribute(node, "coordinate_transformation_mode", "half_pixel")
        if frame not in _RESIZE_FRAMES:
            yield _at("resize", node, f"coordinates {frame!r}", f"use {', '.join(_RESIZE_FRAMES)}")


# input that must be known when the engine is built, by operator
_CONSTANT = {"CumSum": 1, "Pad": 3, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1} | dict.fromkeys(
    ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
     "ReduceProd", "ReduceSum", "ReduceSumSquare"), 1,
)  # fmt: skip


def constant_axes(model: Model, table: Table) -> Iterator[Problem]:
    """Axes that are computed rather than written in the file."""
    if not table.is_tensorrt:
        return
    for node in model.nodes:
        k = _CONSTANT.get(node.op_type)
        if k is not None and len(node.input) > k and node.input[k] not in ("", *model.constants):
            yield _at(
                "axes", node, f"axes come from {node.input[k]!r}, which is computed",
                "write them as an initializer; folding constants often does it",
            )  # fmt: skip


# how many outputs TensorRT gives
_OUTPUTS = {"LayerNormalization": 1, "MaxPool": 1, "BatchNormalization": 1}


def extra_outputs(model: Model, table: Table) -> Iterator[Problem]:
    """Optional outputs that TensorRT does not compute."""
    if not table.is_tensorrt:
        return
    for node in model.nodes:
        limit = _OUTPUTS.get(node.op_type, len(node.output))
        if any(node.output[limit:]):
            yield _at(
                "outputs", node, f"only its first output is computed, not {node.output[limit]!r}", "drop it"
            )


def control_flow(model: Model, table: Table) -> Iterator[Problem]:
    """Loop, If and Scan are read, but cost fusion and, on GPUs, a wait at every turn."""
    for node in model.nodes:
        if node.op_type in ("Loop", "If", "Scan") and node.domain in ("", "ai.onnx"):
            yield _at(
                "control-flow", node, "branches or loops in the graph hinder every optimiser",
                "unroll it, as lse_export does with solvers", "warning",
            )  # fmt: skip


def external_data(model: Model, table: Table) -> Iterator[Problem]:
    """Weights kept beside the graph must be there; browsers must be told of them."""
    missing = set()
    outside = set()
    for tensor in model.initializers:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = next((e.value for e in tensor.external_data if e.key == "location"), "")
            outside.add(place)
            if not (model.path.parent / place).is_file():
                missing.add(place)
    for place in sorted(missing):
        yield Problem("external-data", place, "", "weights lie in a file that is missing", "copy it along")
    if outside and table.target == "web":
        yield Problem(
            "external-data", sorted(outside)[0], "", "a browser will not find weights beside the graph",
            "pass them in the session option externalData", "warning",
        )  # fmt: skip


RULES: tuple[Rule, ...] = (
    external_data,
    valid,
    opset,
    operators,
    types,
    doubles,
    mixed,
    grid_sample,
    resize,
    constant_axes,
    extra_outputs,
    control_flow,
)
"""All rules in the order in which they are reported."""


def _all(model: Model, op: str) -> Iterator[onnx.NodeProto]:
    return (node for node in model.nodes if node.op_type == op and node.domain in ("", "ai.onnx"))


def _at(
    rule: str, node: onnx.NodeProto, what: str, fix: str, severity: Literal["error", "warning"] = "error"
) -> Problem:
    return Problem(rule, label(node), node.op_type, what, fix, severity)
