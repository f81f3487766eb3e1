"""What TensorRT alone refuses, or takes and computes otherwise. Limits on attributes are in the tables."""

from __future__ import annotations

from collections.abc import Iterator

from lse_export.gate.graph import Model, attribute
from lse_export.gate.report import Problem, Rule, at, nodes_of
from lse_export.gate.tables import Table

__all__ = ["SHARED_TRAPS", "TRAPS"]


def doubles(model: Model, table: Table) -> Iterator[Problem]:
    """TensorRT turns float64 into float32 and clamps it, without a word."""
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
    if "float16" not in model.types.values():
        return
    for node in nodes_of(model, "GridSample"):
        if model.types.get(node.input[0]) == "float32":
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
    """GridSample of volumes, read from 11.2 on."""
    for node in nodes_of(model, "GridSample"):
        if len(model.shapes.get(node.input[0], [None] * 4)) != 4:
            yield at("volume", node, "its input is no image (4 axes)")


# input that must be known when the engine is built, by operator
_CONSTANT = {"CumSum": 1, "Pad": 3, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1} | dict.fromkeys(
    ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
     "ReduceProd", "ReduceSum", "ReduceSumSquare"), 1,
)  # fmt: skip


def constant_axes(model: Model, table: Table) -> Iterator[Problem]:
    """Axes that are computed rather than written in the file."""
    for node in model.nodes:
        k = _CONSTANT.get(node.op_type)
        if k is not None and len(node.input) > k and node.input[k] not in ("", *model.constants):
            yield at("axes", node, f"axes come from {node.input[k]!r}, which is computed")


# how many outputs TensorRT gives
_OUTPUTS = {"LayerNormalization": 1, "MaxPool": 1, "BatchNormalization": 1}


def extra_outputs(model: Model, table: Table) -> Iterator[Problem]:
    """Optional outputs that TensorRT does not compute."""
    for node in model.nodes:
        limit = _OUTPUTS.get(node.op_type, len(node.output))
        if any(node.output[limit:]):
            yield at("outputs", node, f"only its first output is computed, not {node.output[limit]!r}")


SHARED_TRAPS: tuple[Rule, ...] = (doubles, zero_points, constant_axes, extra_outputs)
"""Rules of every flavour of TensorRT; its parser for RTX was asked about each of them."""

TRAPS: tuple[Rule, ...] = (grid_sample, half_grid_sample, volumes, *SHARED_TRAPS)
"""Rules of TensorRT 10 and 11, in the order in which they are reported."""
