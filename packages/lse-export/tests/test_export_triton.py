"""Model repositories: the layout on disk and a config that Triton's own schema reads."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper

import lse_export
from lse_core.errors import LSEError, OutputError, UnknownNameError
from lse_export.commands import export


def make(path: Path, batch: object = "batch", kind: int = TensorProto.FLOAT) -> Path:
    x = helper.make_tensor_value_info("image", kind, [batch, 3, 8, 8])
    y = helper.make_tensor_value_info("logits", kind, [batch, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["logits"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_layout_and_config(tmp_path: Path) -> None:
    path = make(tmp_path / "m.onnx")
    made = lse_export.write_triton(
        path, tmp_path / "models", name="digits", max_batch_size=16, preferred_batch_sizes=(4, 8), kind="gpu"
    )
    files = sorted(str(f.relative_to(tmp_path / "models")) for f in (tmp_path / "models").rglob("*"))
    assert files == ["digits", "digits/1", "digits/1/model.onnx", "digits/config.pbtxt"]
    assert made.model.read_bytes() == path.read_bytes()
    assert (made.folder / "config.pbtxt").read_text() == made.config
    lines = made.config.splitlines()
    assert lines[:5] == [
        'name: "digits"',
        'backend: "onnxruntime"',
        "max_batch_size: 16",
        'input [ { name: "image" data_type: TYPE_FP32 dims: [ 3, 8, 8 ] } ]',
        'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 3, 8, 8 ] } ]',
    ]
    assert "preferred_batch_size: 4 preferred_batch_size: 8" in made.config
    assert "KIND_GPU" in made.config


def test_triton_itself_reads_the_config(tmp_path: Path) -> None:
    config_pb2 = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="Triton's schema comes with tritonclient[grpc]"
    )
    from google.protobuf import text_format

    for batch, kind in (("batch", TensorProto.FLOAT), (4, TensorProto.FLOAT16)):
        made = lse_export.write_triton(make(tmp_path / "m.onnx", batch, kind), tmp_path / str(batch))
        config = text_format.Parse(made.config, config_pb2.ModelConfig())
        assert config.name == "m"
        assert config.max_batch_size == (32 if batch == "batch" else 0)
        dims = [3, 8, 8] if batch == "batch" else [4, 3, 8, 8]
        assert list(config.input[0].dims) == list(config.output[0].dims) == dims
        assert config.HasField("dynamic_batching") == (batch == "batch")
        assert list(config.model_warmup[0].inputs["image"].dims) == dims
        assert config.model_warmup[0].inputs["image"].random_data


def test_a_fixed_batch_is_not_batched(tmp_path: Path) -> None:
    made = lse_export.write_triton(make(tmp_path / "m.onnx", 4), tmp_path / "models", warmup=False)
    assert made.max_batch_size == 0
    assert "dims: [ 4, 3, 8, 8 ]" in made.config
    assert "dynamic_batching" not in made.config
    assert "warmup" not in made.config


def test_a_plan_is_served_in_place_of_the_graph(tmp_path: Path) -> None:
    plan = tmp_path / "engine"
    plan.write_bytes(b"engine")
    made = lse_export.write_triton(make(tmp_path / "m.onnx"), tmp_path / "models", plan=plan)
    assert made.model.name == "model.plan"
    assert made.model.read_bytes() == b"engine"
    assert 'backend: "tensorrt"' in made.config


def test_weights_beside_the_graph_come_along(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)).eval()
    lse_export.export_onnx(model, torch.rand(2, 3, 8, 8), path, allow_plain=True)
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="m.weights", size_threshold=256)
    made = lse_export.write_triton(path, tmp_path / "models")
    assert sorted(f.name for f in made.model.parent.iterdir()) == ["m.weights", "model.onnx"]
    assert lse_export.verify(made.model, model, torch.rand(2, 3, 8, 8)).ok


def test_versions_live_side_by_side_and_are_never_overwritten(tmp_path: Path) -> None:
    path = make(tmp_path / "m.onnx")
    lse_export.write_triton(path, tmp_path / "models")
    lse_export.write_triton(path, tmp_path / "models", version=2)
    with pytest.raises(OutputError, match="exists already"):
        lse_export.write_triton(path, tmp_path / "models", version=2)
    assert sorted(f.name for f in (tmp_path / "models" / "m").iterdir()) == ["1", "2", "config.pbtxt"]


def test_bad_input(tmp_path: Path) -> None:
    path = make(tmp_path / "m.onnx")
    with pytest.raises(UnknownNameError, match="Did you mean 'gpu'"):
        lse_export.write_triton(path, tmp_path / "models", kind="gpuu")
    with pytest.raises(LSEError, match="preferred batch sizes"):
        lse_export.write_triton(path, tmp_path / "models", preferred_batch_sizes=(64,))
    with pytest.raises(LSEError, match="at least 1"):
        lse_export.write_triton(path, tmp_path / "models", instances=0)
    with pytest.raises(lse_export.ExportError, match="no such file"):
        lse_export.write_triton(path, tmp_path / "models", plan=tmp_path / "absent.plan")
    with pytest.raises(lse_export.ExportError, match="which Triton cannot pass"):
        lse_export.write_triton(make(tmp_path / "c.onnx", kind=TensorProto.COMPLEX64), tmp_path / "models")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        lse_export.write_triton(path, tmp_path / "file")
    assert not (tmp_path / "models").exists()


def test_command(tmp_path: Path) -> None:
    args = ["triton", str(make(tmp_path / "m.onnx")), str(tmp_path / "models"), "--json"]
    run = CliRunner().invoke(export, args)
    assert run.exit_code == 0, run.output
    assert Path(json.loads(run.stdout)["model"]).is_file()
