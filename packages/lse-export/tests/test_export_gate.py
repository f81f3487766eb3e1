"""The gate: broken files are refused for the right reason, at the right node; good ones pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import NodeProto, TensorProto, helper, numpy_helper

import lse_export
from lse_core.errors import UnknownNameError
from lse_export.commands import export
from lse_export.gate import TARGETS, check
from lse_export.gate.rules import RULES
from lse_export.gate.tables import load_table
from lse_export.gate.traps import TRAPS

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


@dataclass(frozen=True)
class Broken:
    make: Callable[[Path], Path]
    target: str
    rule: str
    place: str
    words: str
    severity: str = "error"


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
        "tensorrt10", "volume", "my_GridSample", "no image",
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
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_for_the_right_reason(name: str, tmp_path: Path) -> None:
    case = BROKEN[name]
    report = check(case.make(tmp_path / "m.onnx"), case.target)
    found = [p for p in report.problems if p.rule == case.rule]
    assert len(found) == 1, [str(p) for p in report.problems]
    assert found[0].node == case.place
    assert case.words in str(found[0])
    assert found[0].fix
    assert found[0].severity == case.severity
    assert report.ok == (case.severity == "warning")


def test_every_rule_is_shown_to_bite() -> None:
    names = {"grid_sample": "grid-sample", "constant_axes": "axes", "extra_outputs": "outputs"}
    names |= {"operators": "operator", "types": "type", "doubles": "double", "attributes": "attribute"}
    names |= {"half_grid_sample": "half-grid-sample", "zero_points": "zero-point", "volumes": "volume"}
    names |= {"control_flow": "control-flow", "external_data": "external-data"}
    assert {names.get(rule.__name__, rule.__name__) for rule in RULES + TRAPS} <= {
        b.rule for b in BROKEN.values()
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(200)), "no ONNX model, or was cut short"),
        (b"", "holds no nodes"),
        (None, "no ONNX model, or was cut short"),
    ],
    ids=["foreign", "empty", "truncated"],
)
def test_files_that_are_no_model(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(good(tmp_path / "good.onnx").read_bytes()[:-20] if content is None else content)
    with pytest.raises(lse_export.ExportError, match=words):
        check(path)
    with pytest.raises(lse_export.ExportError, match="no such file"):
        check(tmp_path / "absent.onnx")


@pytest.mark.parametrize("target", TARGETS)
def test_good_files_pass(target: str, tmp_path: Path) -> None:
    report = check(good(tmp_path / "m.onnx"), target)
    assert report.ok
    assert not report.problems
    assert report.nodes == 2


def test_traps_of_one_target_are_no_traps_of_another(tmp_path: Path) -> None:
    for name in ("linear GridSample of opset 20", "antialiased Resize", "computed axes", "float64"):
        path = BROKEN[name].make(tmp_path / "m.onnx")
        assert check(path, "onnxruntime").ok, name
        # and ONNX Runtime itself agrees
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_nearest_and_old_grid_samples_are_fine(tmp_path: Path) -> None:
    inputs = {"x": (F32, [1, 3, 8, 8]), "g": (F32, [1, 4, 4, 2])}
    for opset, mode in ((20, "nearest"), (18, "bilinear")):
        path = build(tmp_path / "m.onnx", [node("GridSample", "x g", mode=mode)], opset=opset, inputs=inputs)
        assert check(path, "tensorrt10").ok


def test_a_node_without_a_name_is_called_by_its_output(tmp_path: Path) -> None:
    path = build(tmp_path / "m.onnx", [helper.make_node("Det", ["x"], ["y"])])
    (problem,) = [p for p in check(path, "tensorrt10").problems if p.rule == "operator"]
    assert problem.node == "(output y)"


def test_tables_are_whole() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    # layers of TensorRT that ONNX itself dropped or never had
    extra = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}
    for target in TARGETS:
        table = load_table(target)
        assert set(table.types) <= known | extra, set(table.types) - known
        assert len(table.types) >= 150
        assert {"MatMul", "Conv", "Softmax", "LayerNormalization", "GridSample"} <= set(table.types)
        assert table.source
        assert table.date.startswith("202")
        assert table.opsets[0] <= 18 <= table.opsets[1]
        for limit in table.limits:
            for operator in limit.operators:
                attributes = onnx.defs.get_schema(operator, 20).attributes
                assert limit.attribute in attributes, (operator, limit.attribute)
    assert len(load_table("tensorrt10").limits) == len(load_table("tensorrt11").limits) >= 9
    assert "Swish" in load_table("tensorrt11").types
    assert "Swish" not in load_table("tensorrt10").types
    with pytest.raises(UnknownNameError, match=r"Did you mean 'tensorrt1[01]'\?"):
        load_table("tensorrt")


def test_command(tmp_path: Path) -> None:
    run = CliRunner().invoke(export, ["check", str(good(tmp_path / "m.onnx"))])
    assert run.exit_code == 0, run.output
    assert all(f"{target}: ok" in run.stdout for target in TARGETS)
    path = BROKEN["antialiased Resize"].make(tmp_path / "r.onnx")
    run = CliRunner().invoke(export, ["check", str(path), "--target", "tensorrt10", "--json"])
    assert run.exit_code == 1
    (report,) = json.loads(run.stdout)
    assert not report["ok"]
    assert report["problems"][0]["node"] == "my_Resize"
