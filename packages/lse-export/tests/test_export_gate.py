"""The gate: broken files are refused for the right reason, at the right node; good ones pass."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import helper

import lse_export
from lse_core.errors import UnknownNameError
from lse_export.commands import export
from lse_export.gate import TARGETS, check
from lse_export.gate.rules import RULES, TRAPS
from lse_export.gate.tables import load_table


def test_broken_files_are_refused_for_the_right_reason(broken: str, odd: ModuleType, tmp_path: Path) -> None:
    case = odd.BROKEN[broken]
    report = check(case.make(tmp_path / "m.onnx"), case.target)
    found = [p for p in report.problems if p.rule == case.rule]
    assert len(found) == 1, [str(p) for p in report.problems]
    assert found[0].node == case.place
    assert case.words in str(found[0])
    assert found[0].fix
    assert found[0].severity == case.severity
    assert report.ok == (case.severity == "warning")


def test_every_rule_is_shown_to_bite(odd: ModuleType) -> None:
    names = {"grid_sample": "grid-sample", "constant_axes": "axes", "extra_outputs": "outputs"}
    names |= {"operators": "operator", "types": "type", "doubles": "double", "attributes": "attribute"}
    names |= {"half_grid_sample": "half-grid-sample", "zero_points": "zero-point", "volumes": "volume"}
    names |= {"control_flow": "control-flow", "external_data": "external-data"}
    names |= {"numbers": "number", "inputs": "input"}
    assert {names.get(rule.__name__, rule.__name__) for rule in RULES + TRAPS} <= {
        b.rule for b in odd.BROKEN.values()
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
def test_files_that_are_no_model(content: bytes | None, words: str, odd: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(odd.good(tmp_path / "good.onnx").read_bytes()[:-20] if content is None else content)
    with pytest.raises(lse_export.ExportError, match=words):
        check(path)
    with pytest.raises(lse_export.ExportError, match="no such file"):
        check(tmp_path / "absent.onnx")


@pytest.mark.parametrize("target", TARGETS)
def test_good_files_pass(target: str, odd: ModuleType, tmp_path: Path) -> None:
    report = check(odd.good(tmp_path / "m.onnx"), target)
    assert report.ok
    assert not report.problems
    assert report.nodes == 2


def test_traps_of_one_target_are_no_traps_of_another(odd: ModuleType, tmp_path: Path) -> None:
    for name in ("linear GridSample of opset 20", "antialiased Resize", "computed axes", "float64"):
        path = odd.BROKEN[name].make(tmp_path / "m.onnx")
        assert check(path, "onnxruntime").ok, name
        # and ONNX Runtime itself agrees
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_nearest_and_old_grid_samples_are_fine(odd: ModuleType, tmp_path: Path) -> None:
    inputs = {"x": (odd.F32, [1, 3, 8, 8]), "g": (odd.F32, [1, 4, 4, 2])}
    for opset, mode in ((20, "nearest"), (18, "bilinear")):
        path = odd.build(
            tmp_path / "m.onnx", [odd.node("GridSample", "x g", mode=mode)], opset=opset, inputs=inputs
        )
        assert check(path, "tensorrt10").ok


def test_a_node_without_a_name_is_called_by_its_output(odd: ModuleType, tmp_path: Path) -> None:
    path = odd.build(tmp_path / "m.onnx", [helper.make_node("Det", ["x"], ["y"])])
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
        for limit in table.limit:
            for operator in limit.operators:
                attributes = onnx.defs.get_schema(operator, 20).attributes
                assert limit.attribute in attributes, (operator, limit.attribute)
    assert len(load_table("tensorrt10").limit) == len(load_table("tensorrt11").limit) >= 9
    # what one flavour was seen to refuse is not said of the others
    assert not load_table("tensorrt11").bound
    assert len(load_table("tensorrt-rtx").bound) >= 5
    assert "Swish" in load_table("tensorrt11").types
    assert "Swish" not in load_table("tensorrt10").types
    with pytest.raises(UnknownNameError, match=r"Did you mean 'tensorrt(10|11|-rtx)'\?"):
        load_table("tensorrt")


def test_command(odd: ModuleType, tmp_path: Path) -> None:
    run = CliRunner().invoke(export, ["check", str(odd.good(tmp_path / "m.onnx"))])
    assert run.exit_code == 0, run.output
    assert all(f"{target}: ok" in run.stdout for target in TARGETS)
    path = odd.BROKEN["antialiased Resize"].make(tmp_path / "r.onnx")
    run = CliRunner().invoke(export, ["check", str(path), "--target", "tensorrt10", "--json"])
    assert run.exit_code == 1
    (report,) = json.loads(run.stdout)
    assert not report["ok"]
    assert report["problems"][0]["node"] == "my_Resize"
