"""What can be wrong with a file: one function a rule, each yielding the problems it finds.

The first rules are for every target, with limits on attributes, numbers, operators and inputs from the
target's table; then come the traps of TensorRT, which refuses something or computes it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from lse_export.errors import first_line
from lse_export.gate.graph import Model, attribute, inputs_of, open_model
from lse_export.gate.report import GateReport, Problem, Rule, at, nodes_of
from lse_export.gate.tables import Bound, Table, load_table
from lse_export.quantize import overflowing


def valid(model: Model, table: Table) -> Iterator[Problem]:
    """The file must be valid ONNX: onnx.checker with full shape inference."""
    try:
        onnx.checker.check_model(str(model.path), full_check=True)
    except Exception as error:  # the checker and the inference raise classes of their own
        yield at("valid", "", f"not valid ONNX ({first_line(error)})")


def opset(model: Model, table: Table) -> Iterator[Problem]:
    """The opset must be one the target reads."""
    first, last = table.opsets
    if not first <= model.opset <= last:
        yield at("opset", "", f"opset {model.opset}, but {table.name} reads {first} to {last}")


def operators(model: Model, table: Table) -> Iterator[Problem]:
    """Every operator must be in the target's table, or a local function of the file."""
    supported = table.types
    for node in model.nodes:
        if (node.domain, node.op_type) in model.functions:
            continue
        if node.domain not in ("", "ai.onnx"):
            if node.domain not in table.domains:
                yield at("domain", node, f"operators of domain {node.domain!r} are unknown to {table.name}")
        elif node.op_type not in supported:
            yield at("operator", node, f"{table.name} has no such operator (table of {table.date})")


# operators whose data is not their first input
_DATA = {"Where": 1, "OneHot": 2}
_BY_OUTPUT = {"Constant", "ConstantOfShape", "Cast", "RandomNormal", "RandomUniform", "EyeLike"}


def types(model: Model, table: Table) -> Iterator[Problem]:
    """An operator's data must be of a type the target computes with."""
    supported = table.types
    for node in nodes_of(model, *supported):
        known = supported[node.op_type]
        k = _DATA.get(node.op_type, 0)
        names = node.output if node.op_type in _BY_OUTPUT or len(node.input) <= k else node.input[k : k + 1]
        for name in names:
            found = model.types.get(name, "unknown")
            # doubles have a rule of their own
            if found not in (*known, "unknown", "float64"):
                yield at("type", node, f"{found} data, but {table.name} takes {', '.join(sorted(known))}")


# operators whose listed inputs must agree in type
_UNIFORM = {"Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Conv", "ConvTranspose", "Concat", "Min", "Max",
            "Sum", "Mean", "Equal", "Less", "Greater", "PRelu"}  # fmt: skip


def mixed(model: Model, table: Table) -> Iterator[Problem]:
    """Inputs of an arithmetic operator must have one type; strongly typed builds do not convert."""
    for node in nodes_of(model, *_UNIFORM, *table.uniform):
        kinds = sorted({model.types[n] for n in node.input if n in model.types} - {"unknown"})
        if len(kinds) > 1:
            yield at("mixed", node, f"its inputs are {' and '.join(kinds)}")


def control_flow(model: Model, table: Table) -> Iterator[Problem]:
    """Loop, If and Scan are read, but cost fusion and, on GPUs, a wait at every turn."""
    for node in nodes_of(model, "Loop", "If", "Scan"):
        yield at("control-flow", node, "branches or loops in the graph hinder every optimiser")


def external_data(model: Model, table: Table) -> Iterator[Problem]:
    """Weights kept beside the graph must be there, and browsers have to be told where."""
    outside: dict[str, int] = {}  # how long each file must be
    for tensor in filter(uses_external_data, model.tensors.values()):
        told = ExternalDataInfo(tensor)
        size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * int(np.prod(tensor.dims))
        end = (told.offset or 0) + (told.length or size)
        outside[told.location] = max(outside.get(told.location, 0), end)
    for place, size in sorted(outside.items()):
        file = model.path.parent / place
        if not file.is_file():
            yield at("external-data", place, "weights lie in a file that is missing", "copy it along")
        elif file.stat().st_size < size:
            yield at("external-data", place, "weights lie in a file that is truncated", "copy it again")
    if outside and table.target == "web":
        yield Problem(
            "external-data", sorted(outside)[0], "", "a browser will not find weights beside the graph",
            "pass them in the session option externalData", "warning",
        )  # fmt: skip


def saturation(model: Model, table: Table) -> Iterator[Problem]:
    """Eight-bit weights that overflow in ONNX Runtime's kernels on some CPUs: one warning for the file."""
    if table.target == "onnxruntime" and (layers := overflowing(model.proto)):
        overflow = f"8-bit sums of {len(layers)} layers overflow on x86 CPUs without VNNI instructions"
        yield at("saturation", layers[0], overflow)


def attributes(model: Model, table: Table) -> Iterator[Problem]:
    """Attributes must have values that the target takes: the `limit` entries of its table."""
    for limit in table.limit:
        for node in nodes_of(model, *limit.operators):
            value = attribute(node, limit.attribute, None)
            if value is not None and value not in limit.values:
                what = f"{limit.attribute} = {value!r}, which {table.name} does not know"
                yield at("attribute", node, what, limit.fix)


def numbers(model: Model, table: Table) -> Iterator[Problem]:
    """Numbers written in the file must be those that the target takes: the `bound` entries of its table."""
    for bound in table.bound:
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
        axes = attribute(node, "axes")  # a node that has them lists only those axes
        places = axes if isinstance(axes, list) else list(range(values.size))
        values = values[[place for place, axis in enumerate(places[: values.size]) if axis == bound.index]]
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


def refused(model: Model, table: Table) -> Iterator[Problem]:
    """Operators that the target knows by name and cannot build: the `refused` entries of its table."""
    for entry in table.refused:
        for node in nodes_of(model, *entry.operators):
            yield at("refused", node, entry.what, entry.fix)


def inputs(model: Model, table: Table) -> Iterator[Problem]:
    """The graph's own inputs must have types that the target takes."""
    for value in inputs_of(model.proto.graph):
        found = model.types.get(value.name, "unknown")
        if table.inputs and found not in (*table.inputs, "unknown"):
            what = f"an input of {found}, but {table.name} takes {', '.join(table.inputs)}"
            yield at("input", value.name, what)


def doubles(model: Model, table: Table) -> Iterator[Problem]:
    """TensorRT turns float64 into float32 and clamps it, without a warning."""
    wide = {name for name, kind in model.types.items() if kind == "float64"}
    for node in model.nodes:
        if wide.intersection([*node.input, *node.output]):
            yield at("double", node, f"float64 tensors; {table.name} computes them in float32")
            return  # where one is, hundreds are: the first says enough


def grid_sample(model: Model, table: Table) -> Iterator[Problem]:
    """GridSample since opset 20 says "linear" where TensorRT expects "bilinear", and reads as nearest.

    NVIDIA/TensorRT issue 4646, onnx/onnx-tensorrt pull request 1060.
    """
    for node in nodes_of(model, "GridSample"):
        mode = attribute(node, "mode", "linear" if model.opset >= 20 else "bilinear")
        if model.opset >= 20 and mode != "nearest":
            what = f"mode {mode!r} of opset {model.opset} is read as nearest-neighbour"
            yield at("grid-sample", node, what)


def half_grid_sample(model: Model, table: Table) -> Iterator[Problem]:
    """float32 GridSample in a model in half precision is wrong since 10.14 (pytorch/TensorRT issue 4074)."""
    for node in nodes_of(model, "GridSample"):
        if model.types.get(node.input[0]) == "float32" and "float16" in model.types.values():
            what = "float32 among float16 tensors, computed wrongly since 10.14"
            yield at("half-grid-sample", node, what)


def zero_points(model: Model, table: Table) -> Iterator[Problem]:
    """Quantization is symmetric: zero points other than 0 are refused."""
    for node in nodes_of(model, "QuantizeLinear", "DequantizeLinear"):
        if len(node.input) < 3 or not node.input[2]:
            continue
        value = model.value(node.input[2])
        if value is None or value.astype(float).any():
            what = "a zero point that is not 0" if value is not None else "a computed zero point"
            yield at("zero-point", node, what)


def volumes(model: Model, table: Table) -> Iterator[Problem]:
    """TensorRT samples volumes from release 11.2 on."""
    for node in nodes_of(model, "GridSample"):
        if len(model.shapes.get(node.input[0], [None] * 4)) != 4:
            yield at("volume", node, "its input is not an image (4 axes)")


# input that must be known when the engine is built, by operator; of every "Reduce..." it is the second
_CONSTANT = {"CumSum": 1, "Pad": 3, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1}


def constant_axes(model: Model, table: Table) -> Iterator[Problem]:
    """Axes must be written in the file, not computed."""
    for node in model.nodes:
        k = 1 if node.op_type.startswith("Reduce") else _CONSTANT.get(node.op_type)
        if k is not None and len(node.input) > k and node.input[k] not in ("", *model.constants):
            yield at("axes", node, f"axes come from {node.input[k]!r}, which is computed")


def extra_outputs(model: Model, table: Table) -> Iterator[Problem]:
    """TensorRT does not compute optional outputs of some operators."""
    for node in nodes_of(model, "LayerNormalization", "MaxPool", "BatchNormalization"):
        if any(node.output[1:]):
            yield at("outputs", node, f"only its first output is computed, not {node.output[1]!r}")


SHARED_TRAPS: tuple[Rule, ...] = (doubles, zero_points, constant_axes, extra_outputs)
"""Rules of every flavour of TensorRT; its parser for RTX was asked about each of them."""

TRAPS: tuple[Rule, ...] = (grid_sample, half_grid_sample, volumes, *SHARED_TRAPS)
"""Rules of TensorRT 10 and 11, in the order in which they are reported."""


RULES: tuple[Rule, ...] = (
    external_data, valid, opset, operators, types, mixed, control_flow, saturation,
    attributes, numbers, refused, inputs,
)  # fmt: skip
"""Rules for every target in the order in which they are reported; TensorRT's traps come after."""


def check(path: str | Path, target: str = "onnxruntime") -> GateReport:
    """Check whether a runtime can run an ONNX file, and name the nodes that it cannot run.

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
    traps = SHARED_TRAPS if target == "tensorrt-rtx" else TRAPS if target.startswith("tensorrt") else ()
    problems = [problem for rule in RULES + traps for problem in rule(model, table)]
    return GateReport(model.path, target, table.source, table.date, model.opset, len(model.nodes), problems)
