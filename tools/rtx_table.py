"""Write the gate's table of TensorRT for RTX by asking its parser, which needs no GPU.

Operators are those that `supports_operator` takes, of all that ONNX ever had. Types are asked with a file of
one node for each operator that takes one or two tensors of one type and nothing else; other operators get
the types that the parser takes as inputs, without uint8, which few operators compute with. The parser says
true of some operators that cannot be built, and of more in some settings: what is known of these is in
tensorrt_rtx_limits.toml, which is written by hand.

    python tools/rtx_table.py
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from lse_export.gate.graph import type_name
from lse_export.tensorrt.library import load

TABLE = (
    Path(__file__).parents[1]
    / "packages" / "lse-export" / "src" / "lse_export" / "gate" / "tables" / "tensorrt-rtx.toml"
)  # fmt: skip
NUMBERS = (
    "FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64",
    "UINT64", "BOOL", "STRING",
)  # fmt: skip
NARROW = ("INT4", "FLOAT8E4M3FN", "FLOAT4E2M1")
OPSETS = (20, 22, 24)  # ONNX gave operators more types as time went by
# results of another type than the data, and what they have
RESULTS = {"Cast": "FLOAT", "Shape": "INT64", "Size": "INT64"}
HEAD = """\
# What the ONNX parser of TensorRT for RTX takes, written by tools/rtx_table.py.
name = "TensorRT for RTX"
source = "parser of tensorrt-rtx-cu12 {version}, asked by tools/rtx_table.py"
date = {date}
opsets = [{first}, {last}]
domains = [""]
limits = "tensorrt_rtx_limits"
inputs = [{inputs}]
"""


class Judge:
    """The parser, asked about files in memory."""

    def __init__(self) -> None:
        found = load("rtx")
        self.trt, self.log = found.trt, found.Log()
        self.version = self.trt.__version__
        self.builder = self.trt.Builder(self.log)

    def parser(self) -> tuple[Any, Any]:
        """A network, and a parser for it."""
        network = self.builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        return network, self.trt.OnnxParser(network, self.log)

    def takes(self, op: str, kind: str, count: int, opset: int = 20) -> bool:
        """Whether it reads a node of `count` inputs, all the same tensor of a type.

        It is asked only where that is valid ONNX: on other files it can crash.
        """
        number = TensorProto.DataType.Value(kind)
        attributes = {"to": TensorProto.FLOAT} if op == "Cast" else {}
        node = helper.make_node(op, ["x"] * count, ["y"], **attributes)
        result = TensorProto.DataType.Value(RESULTS.get(op, kind))
        graph = helper.make_graph(
            [node], "g",
            [helper.make_tensor_value_info("x", number, [2, 3, 4, 4])],
            [helper.make_tensor_value_info("y", result, None)],
        )  # fmt: skip
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        return self._reads(proto)

    def dequantizes(self, kind: str) -> bool:
        """Whether it reads a DequantizeLinear of a type, after a QuantizeLinear; the zero point is 0."""
        number = TensorProto.DataType.Value(kind)
        graph = helper.make_graph(
            [
                helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
            ], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [
                helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5]),
                helper.make_tensor("zero", number, [], [0]),
            ],
        )  # fmt: skip
        return self._reads(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
        )

    def _reads(self, proto: onnx.ModelProto) -> bool:
        try:
            proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
            onnx.checker.check_model(proto, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
            return False
        network, parser = self.parser()
        read = bool(parser.parse(proto.SerializeToString()))
        del network  # only now: the parser writes into it
        return read


@contextmanager
def quiet() -> Iterator[None]:
    """The parser's C++ code writes to stderr about types it does not know."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def main() -> None:
    """Ask, and write the table."""
    judge = Judge()
    schemas = {s.name: s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    _, parser = judge.parser()
    operators = sorted(name for name in schemas if parser.supports_operator(name))
    with quiet():
        inputs = [kind for kind in NUMBERS if judge.takes("Cast", kind, 1)]
        opsets = [
            k for k in range(1, onnx.defs.onnx_opset_version() + 1) if judge.takes("Relu", "FLOAT", 1, k)
        ]
        asked: dict[str, list[str]] = {}
        for name in operators:
            count = max(schemas[name].min_input, 1)
            if count <= 2 and judge.takes(name, "FLOAT", count):
                asked[name] = [
                    kind for kind in inputs if any(judge.takes(name, kind, count, k) for k in OPSETS)
                ]
        asked["DequantizeLinear"] = [kind for kind in (*inputs, *NARROW) if judge.dequantizes(kind)]
    common = [kind for kind in inputs if kind != "UINT8"]
    by_types: dict[tuple[str, ...], list[str]] = {}
    for name in operators:
        by_types.setdefault(tuple(asked.get(name, common)), []).append(name)
    first, last = opsets[0], opsets[-1]
    assert opsets == list(range(first, last + 1))
    text = HEAD.format(
        version=judge.version, date=datetime.date.today(), first=first, last=last,
        inputs=", ".join(f'"{spelled(kind)}"' for kind in inputs),
    )  # fmt: skip
    for kinds, names in sorted(by_types.items(), key=lambda pair: pair[1]):
        listed = ", ".join(f'"{spelled(kind)}"' for kind in kinds)
        text += f"\n[[support]]\ntypes = [{listed}]\noperators = [\n{wrapped(names)}]\n"
    TABLE.write_text(text, "utf-8")
    print(f"{TABLE.name}: {len(operators)} of {len(schemas)} operators, opsets {first} to {last}")
    print(f"types asked of {len(asked)} operators")


def spelled(kind: str) -> str:
    """The gate's name of a type of ONNX."""
    return type_name(TensorProto.DataType.Value(kind))


def wrapped(names: list[str]) -> str:
    """Names in lines of at most 110 characters."""
    lines, line = [], "   "
    for name in names:
        if len(line) + len(name) + 4 > 108:
            lines.append(line)
            line = "   "
        line += f' "{name}",'
    return "\n".join([*lines, line]) + "\n"


if __name__ == "__main__":
    main()
