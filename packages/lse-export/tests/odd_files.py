"""Odd ONNX files for the tests of the gate and of NVIDIA's parser; `conftest.py` hands them over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

F32, F16, F64, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64


def build(
    path: Path,
    nodes: list[NodeProto],
    *,
    inputs: dict[str, tuple[int, list]] | None = None,
    outputs: dict[str, tuple[int, list]] | None = None,
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    domains: tuple[str, ...] = (),
) -> Path:
    def values(described: dict) -> list:
        return [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in described.items()]

    graph = helper.make_graph(
        nodes,
        "g",
        values(inputs or {"x": (F32, ["batch", 3, 8, 8])}),
        values(outputs or {"y": (F32, list("abcd"))}),
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


def node(op: str, inputs: str, outputs: str = "y", **attributes: object) -> NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"my_{op}", **attributes)


def good(path: Path) -> Path:
    return build(path, [node("Relu", "x", "r"), node("Add", "r x")])


def with_loop(path: Path) -> Path:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Relu", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", I64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", F32, ["batch", 3, 8, 8]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", F32, ["batch", 3, 8, 8]),
        ],
    )
    constants = {"n": np.array(3), "yes": np.array(True)}
    return build(path, [node("Loop", "n yes x", "y", body=body)], constants=constants)


def with_missing_weights(path: Path) -> Path:
    build(path, [node("Add", "x b")], constants={"b": np.zeros((3, 8, 8), np.float32)})
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()
    return path


def with_short_weights(path: Path) -> Path:
    build(path, [node("Add", "x b")], constants={"b": np.zeros((3, 8, 8), np.float32)})
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").write_bytes((path.parent / "weights.bin").read_bytes()[:-4])
    return path


@dataclass(frozen=True)
class Broken:
    """A file that a target refuses, takes wrongly, or is warned of.

    Attributes:
        make: writes it.
        target: whose table says so.
        rule: the gate's rule that finds it.
        place: the node or tensor it names.
        words: part of what it says.
        severity: "error" or "warning".
    """

    make: Callable[[Path], Path]
    target: str
    rule: str
    place: str
    words: str
    severity: str = "error"


LSTM = {"w": np.ones((1, 16, 3), np.float32), "r": np.ones((1, 16, 4), np.float32)}
SIZES = {"sizes": np.array([1, 3, 16, 16])}
BROKEN = {
    "operator that TensorRT lacks": Broken(
        lambda p: build(p, [node("Det", "x")]), "tensorrt10", "operator", "my_Det", "no such operator"
    ),
    "operator newer than the browser's": Broken(
        lambda p: build(p, [node("ImageDecoder", "x")], inputs={"x": (TensorProto.UINT8, [9])},
                        outputs={"y": (TensorProto.UINT8, list("abc"))}, opset=20),
        "web", "operator", "my_ImageDecoder", "no such operator",
    ),
    "foreign domain": Broken(
        lambda p: build(p, [helper.make_node("Warp", ["x"], ["y"], name="my_Warp", domain="acme")],
                        domains=("acme",)),
        "onnxruntime", "domain", "my_Warp", "'acme'",
    ),
    "opset too new": Broken(
        lambda p: build(p, [node("Relu", "x")], opset=22), "tensorrt10", "opset", "", "opset 22"
    ),
    "opset too old": Broken(
        lambda p: build(p, [node("Relu", "x")], opset=6), "tensorrt11", "opset", "", "opset 6"
    ),
    "linear GridSample of opset 20": Broken(
        lambda p: build(p, [node("GridSample", "x g", mode="linear")], opset=20,
                        inputs={"x": (F32, [1, 3, 8, 8]), "g": (F32, [1, 4, 4, 2])}),
        "tensorrt10", "grid-sample", "my_GridSample", "nearest-neighbour",
    ),
    "default GridSample of opset 20": Broken(
        lambda p: build(p, [node("GridSample", "x g")], opset=20,
                        inputs={"x": (F32, [1, 3, 8, 8]), "g": (F32, [1, 4, 4, 2])}),
        "tensorrt11", "grid-sample", "my_GridSample", "nearest-neighbour",
    ),
    "antialiased Resize": Broken(
        lambda p: build(p, [node("Resize", "x - - sizes", mode="linear", antialias=1)], constants=SIZES),
        "tensorrt10", "attribute", "my_Resize", "antialias = 1",
    ),
    "cubic Resize": Broken(
        lambda p: build(p, [node("Resize", "x - - sizes", mode="cubic")], constants=SIZES),
        "tensorrt11", "attribute", "my_Resize", "mode = 'cubic'",
    ),
    "computed axes": Broken(
        lambda p: build(p, [node("Add", "a a", "b"), node("ReduceSum", "x b")],
                        inputs={"x": (F32, [1, 3, 8, 8]), "a": (I64, [1])}),
        "tensorrt10", "axes", "my_ReduceSum", "'b'",
    ),
    "float64": Broken(
        lambda p: build(p, [node("Relu", "x")], inputs={"x": (F64, [2, 3])}, outputs={"y": (F64, [2, 3])}),
        "tensorrt10", "double", "my_Relu", "computes them in float32",
    ),
    "mixed types": Broken(
        lambda p: build(p, [node("Add", "x h")], inputs={"x": (F32, [2, 3]), "h": (F16, [2, 3])}),
        "tensorrt11", "mixed", "my_Add", "float16 and float32",
    ),
    "integer convolution data": Broken(
        lambda p: build(p, [node("Pow", "x x")], inputs={"x": (I64, [2])}, outputs={"y": (I64, [2])}),
        "tensorrt10", "type", "my_Pow", "int64 data",
    ),
    "indices of MaxPool": Broken(
        lambda p: build(p, [node("MaxPool", "x", "y i", kernel_shape=[2, 2])],
                        outputs={"y": (F32, list("abcd")), "i": (I64, list("abcd"))}),
        "tensorrt10", "outputs", "my_MaxPool", "'i'",
    ),
    "dilated pooling": Broken(
        lambda p: build(p, [node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 1])]),
        "tensorrt11", "attribute", "my_MaxPool", "dilations = [2, 1]",
    ),
    "quantization with an offset": Broken(
        lambda p: build(p, [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s o")],
                        constants={"s": np.array(0.1, np.float32), "z": np.array(3, np.int8),
                                   "o": np.array(0, np.int8)}),
        "tensorrt10", "zero-point", "my_QuantizeLinear", "symmetrically",
    ),
    "volume": Broken(
        lambda p: build(p, [node("GridSample", "x g", mode="nearest")], opset=20,
                        outputs={"y": (F32, list("abcde"))},
                        inputs={"x": (F32, [1, 3, 4, 8, 8]), "g": (F32, [1, 2, 4, 4, 3])}),
        "tensorrt10", "volume", "my_GridSample", "not an image",
    ),
    "GridSample amid half precision": Broken(
        lambda p: build(p, [node("Cast", "h", "x", to=F32), node("GridSample", "x g")],
                        inputs={"h": (F16, [1, 3, 8, 8]), "g": (F32, [1, 4, 4, 2])}),
        "tensorrt10", "half-grid-sample", "my_GridSample", "since 10.14", "warning",
    ),
    "invalid graph": Broken(
        lambda p: build(p, [node("Relu", "nowhere")]), "onnxruntime", "valid", "", "not valid ONNX"
    ),
    "lost weights": Broken(
        with_missing_weights, "onnxruntime", "external-data", "weights.bin", "missing"
    ),
    "weights of eight bits": Broken(
        lambda p: build(p, [node("DequantizeLinear", "w s", "v"), node("Conv", "x v")],
                        constants={"w": np.full((4, 3, 1, 1), 127, np.int8), "s": np.array(0.1, np.float32)}),
        "onnxruntime", "saturation", "my_Conv", "without VNNI", "warning",
    ),
    "loop": Broken(with_loop, "tensorrt10", "control-flow", "my_Loop", "unroll", "warning"),
    "short weights": Broken(
        with_short_weights, "onnxruntime", "external-data", "weights.bin", "truncated"
    ),
    # what TensorRT for RTX refuses, found by asking it
    "GridSample of two types": Broken(
        lambda p: build(p, [node("GridSample", "x g")], outputs={"y": (F16, list("abcd"))},
                        inputs={"x": (F16, [1, 3, 8, 8]), "g": (F32, [1, 4, 4, 2])}),
        "tensorrt-rtx", "mixed", "my_GridSample", "float16 and float32",
    ),
    "int16 input": Broken(
        lambda p: build(p, [node("Cast", "x", to=F32)], inputs={"x": (TensorProto.INT16, [2])},
                        outputs={"y": (F32, [2])}),
        "tensorrt-rtx", "input", "x", "an input of int16",
    ),
    "uint32 input": Broken(
        lambda p: build(p, [node("Cast", "x", to=F32)], inputs={"x": (TensorProto.UINT32, [2])},
                        outputs={"y": (F32, [2])}),
        "tensorrt-rtx", "input", "x", "an input of uint32",
    ),
    "uint8 Transpose": Broken(
        lambda p: build(p, [node("Transpose", "x")], inputs={"x": (TensorProto.UINT8, [2, 3])},
                        outputs={"y": (TensorProto.UINT8, [3, 2])}),
        "tensorrt-rtx", "type", "my_Transpose", "uint8 data",
    ),
    "uint8 Add": Broken(
        lambda p: build(p, [node("Add", "x x")], inputs={"x": (TensorProto.UINT8, [2, 3])},
                        outputs={"y": (TensorProto.UINT8, [2, 3])}),
        "tensorrt-rtx", "type", "my_Add", "uint8 data",
    ),
    "Resize that scales the batch": Broken(
        lambda p: build(p, [node("Resize", "x - s", mode="linear")],
                        constants={"s": np.array([2, 1, 2, 2], np.float32)}),
        "tensorrt-rtx", "number", "my_Resize", "holds 2",
    ),
    "Resize to another batch": Broken(
        lambda p: build(p, [node("Resize", "x - - s", mode="linear")], inputs={"x": (F32, [1, 3, 8, 8])},
                        constants={"s": np.array([2, 3, 8, 8])}),
        "tensorrt-rtx", "number", "my_Resize", "holds 2",
    ),
    "Resize of the batch by its axes": Broken(
        lambda p: build(p, [node("Resize", "x - s", mode="linear", axes=[3, 0])],
                        constants={"s": np.array([2, 3], np.float32)}),
        "tensorrt-rtx", "number", "my_Resize", "holds 3",
    ),
    "ScatterElements with reduction": Broken(
        lambda p: build(p, [node("ScatterElements", "x i u", reduction="add")],
                        inputs={"x": (F32, [3, 3]), "i": (I64, [2, 3]), "u": (F32, [2, 3])},
                        outputs={"y": (F32, [3, 3])}),
        "tensorrt-rtx", "attribute", "my_ScatterElements", "reduction = 'add'",
    ),
    "Dropout in training mode": Broken(
        lambda p: build(p, [node("Dropout", "x r t")],
                        constants={"r": np.array(0.5, np.float32), "t": np.array(True)}),
        "tensorrt-rtx", "number", "my_Dropout", "holds 1",
    ),
    "negative scale": Broken(
        lambda p: build(p, [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q t z")],
                        constants={"s": np.array(-0.1, np.float32), "t": np.array(0.1, np.float32),
                                   "z": np.array(0, np.int8)}),
        "tensorrt-rtx", "number", "my_QuantizeLinear", "holds -0.1",
    ),
    "scale of zero": Broken(
        lambda p: build(p, [node("DequantizeLinear", "x s")], inputs={"x": (TensorProto.INT8, [2, 3])},
                        outputs={"y": (F32, [2, 3])}, constants={"s": np.array(0, np.float32)}),
        "tensorrt-rtx", "number", "my_DequantizeLinear", "holds 0",
    ),
    "TopK of too many": Broken(
        lambda p: build(p, [node("TopK", "x k", "y i")], inputs={"x": (F32, [2, 9000])},
                        outputs={"y": (F32, list("ab")), "i": (I64, list("ab"))},
                        constants={"k": np.array([3841])}),
        "tensorrt-rtx", "number", "my_TopK", "holds 3841",
    ),
    "NonZero": Broken(
        lambda p: build(p, [node("NonZero", "x")], outputs={"y": (I64, list("ab"))}),
        "tensorrt-rtx", "refused", "my_NonZero", "needs a plugin",
    ),
    "RoiAlign": Broken(
        lambda p: build(p, [node("RoiAlign", "x r i", output_height=2, output_width=2)],
                        inputs={"x": (F32, [1, 3, 8, 8]), "r": (F32, [2, 4]), "i": (I64, [2])}),
        "tensorrt-rtx", "refused", "my_RoiAlign", "needs a plugin",
    ),
    "NonMaxSuppression": Broken(
        lambda p: build(p, [node("NonMaxSuppression", "b s m")],
                        inputs={"b": (F32, [1, 9, 4]), "s": (F32, [1, 1, 9])}, outputs={"y": (I64, ["n", 3])},
                        constants={"m": np.array([3])}),
        "tensorrt-rtx", "refused", "my_NonMaxSuppression", "needs a plugin",
    ),
    "DeformConv": Broken(
        lambda p: build(p, [node("DeformConv", "x w o")], opset=19,
                        inputs={"x": (F32, [1, 3, 8, 8]), "o": (F32, [1, 18, 6, 6])},
                        constants={"w": np.ones((4, 3, 3, 3), np.float32)}),
        "tensorrt-rtx", "operator", "my_DeformConv", "no such operator",
    ),
    "antialiased Resize, RTX": Broken(
        lambda p: build(p, [node("Resize", "x - - sizes", mode="linear", antialias=1)],
                        inputs={"x": (F32, [1, 3, 8, 8])}, constants=SIZES),
        "tensorrt-rtx", "attribute", "my_Resize", "antialias = 1",
    ),
    "symmetric half pixels": Broken(
        lambda p: build(p, [node("Resize", "x - s", mode="linear",
                                 coordinate_transformation_mode="half_pixel_symmetric")],
                        opset=19, constants={"s": np.array([1, 1, 2, 2], np.float32)}),
        "tensorrt-rtx", "attribute", "my_Resize", "half_pixel_symmetric",
    ),
    "Resize that keeps the aspect": Broken(
        lambda p: build(p, [node("Resize", "x - - s", mode="linear", keep_aspect_ratio_policy="not_larger")],
                        inputs={"x": (F32, [1, 3, 8, 8])}, constants={"s": np.array([1, 3, 16, 12])}),
        "tensorrt-rtx", "attribute", "my_Resize", "not_larger",
    ),
    "dilated average": Broken(
        lambda p: build(p, [node("AveragePool", "x", kernel_shape=[2, 2], dilations=[2, 2])], opset=19),
        "tensorrt-rtx", "attribute", "my_AveragePool", "dilations = [2, 2]",
    ),
    "ScatterND with reduction": Broken(
        lambda p: build(p, [node("ScatterND", "x i u", reduction="mul")],
                        inputs={"x": (F32, [3, 3]), "i": (I64, [2, 1]), "u": (F32, [2, 3])},
                        outputs={"y": (F32, [3, 3])}),
        "tensorrt-rtx", "attribute", "my_ScatterND", "reduction = 'mul'",
    ),
    "coupled LSTM": Broken(
        lambda p: build(p, [node("LSTM", "x w r", hidden_size=4, input_forget=1)],
                        inputs={"x": (F32, [5, 2, 3])}, constants=LSTM),
        "tensorrt-rtx", "attribute", "my_LSTM", "input_forget = 1",
    ),
}  # fmt: skip

FINE = {
    "plain": good,
    "linear Resize": lambda p: build(p, [node("Resize", "x - s", mode="linear")],
                                     constants={"s": np.array([1, 1, 2, 2], np.float32)}),
    "Resize by its axes": lambda p: build(p, [node("Resize", "x - s", mode="linear", axes=[2, 3])],
                                          constants={"s": np.array([2, 2], np.float32)}),
    "nearest Resize of the batch": lambda p: build(p, [node("Resize", "x - s", mode="nearest")],
                                                   constants={"s": np.array([2, 1, 2, 2], np.float32)}),
    "GridSample in half": lambda p: build(
        p, [node("GridSample", "x g")], outputs={"y": (F16, list("abcd"))},
        inputs={"x": (F16, [1, 3, 8, 8]), "g": (F16, [1, 4, 4, 2])}),
    "TopK unsorted": lambda p: build(
        p, [node("TopK", "x k", "y i", sorted=0)], constants={"k": np.array([3])},
        inputs={"x": (F32, [2, 90])}, outputs={"y": (F32, list("ab")), "i": (I64, list("ab"))}),
    "LSTM, batch first": lambda p: build(
        p, [node("LSTM", "x w r", hidden_size=4, layout=1)], inputs={"x": (F32, [2, 5, 3])}, constants=LSTM),
    "int64 CumSum": lambda p: build(p, [node("CumSum", "x a")], inputs={"x": (I64, [2])},
                                    outputs={"y": (I64, [2])}, constants={"a": np.array(0)}),
    "uint8 quantization without offset": lambda p: build(
        p, [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")],
        constants={"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}),
    "RMSNormalization": lambda p: build(p, [node("RMSNormalization", "x w")], opset=23,
                                        constants={"w": np.ones(8, np.float32)}),
    "opset 7": lambda p: build(p, [node("Relu", "x")], opset=7),
    "opset 26": lambda p: build(p, [node("Relu", "x")], opset=26),
    "uint8 Cast": lambda p: build(p, [node("Shape", "x", "s"), node("Cast", "x", to=F32)],
                                  inputs={"x": (TensorProto.UINT8, ["batch", 8, 8, 3])}),
    "Dropout that is off": lambda p: build(p, [node("Dropout", "x r t")],
                                           constants={"r": np.array(0.5, np.float32), "t": np.array(False)}),
    "TopK of the most": lambda p: build(
        p, [node("TopK", "x k", "y i")], inputs={"x": (F32, [2, 9000])}, constants={"k": np.array([3840])},
        outputs={"y": (F32, list("ab")), "i": (I64, list("ab"))}),
    "an operator of ONNX Runtime": lambda p: build(
        p, [helper.make_node("Gelu", ["x"], ["y"], name="my_Gelu", domain="com.microsoft")],
        domains=("com.microsoft",)),
    "a name of ONNX in another domain": lambda p: build(
        p, [helper.make_node("Relu", ["x"], ["y"], name="my_Relu", domain="acme")], domains=("acme",)),
}  # fmt: skip
"""Files that TensorRT for RTX builds, near the edge of what it refuses."""
