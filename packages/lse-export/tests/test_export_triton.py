"""Model repositories: the layout on disk and a config that Triton's own schema reads."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata, util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper

import lse_export
from lse_core.errors import LSEError, OutputError, UnknownNameError
from lse_export.commands import export
from lse_export.tensorrt import EngineFacts
from lse_export.tensorrt.sidecar import model_hash, sidecar_of


def make(path: Path, batch: object = "batch", kind: int = TensorProto.FLOAT) -> Path:
    x = helper.make_tensor_value_info("image", kind, [batch, 3, 8, 8])
    y = helper.make_tensor_value_info("logits", kind, [batch, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["logits"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_layout_and_config(tmp_path: Path) -> None:
    path = make(tmp_path / "m.onnx")
    made = lse_export.write_triton(path, tmp_path / "models", name="digits", max_batch_size=16, kind="gpu")
    files = sorted(str(f.relative_to(tmp_path / "models")) for f in (tmp_path / "models").rglob("*"))
    assert files == ["digits", "digits/1", "digits/1/model.onnx", "digits/config.pbtxt"]
    assert made.model.read_bytes() == path.read_bytes()
    assert (made.folder / "config.pbtxt").read_text() == made.config
    lines = made.config.splitlines()
    assert lines[:5] == [
        'name: "digits"',
        'backend: "onnxruntime"',
        "max_batch_size: 16",
        'input { name: "image" data_type: TYPE_FP32 dims: 3 dims: 8 dims: 8 }',
        'output { name: "logits" data_type: TYPE_FP32 dims: 3 dims: 8 dims: 8 }',
    ]
    assert "KIND_GPU" in made.config


@pytest.fixture(scope="module")
def schema() -> ModuleType:
    """Triton's published model_config.proto; loaded as a file, for the package around it wants gRPC."""
    try:
        package = metadata.distribution("tritonclient")
    except metadata.PackageNotFoundError:
        pytest.skip("Triton's schema comes with tritonclient, which is not installed")
    place = package.locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = util.spec_from_file_location("model_config_pb2", str(place))
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(config: str, schema: ModuleType) -> Any:
    """The config by Triton's schema; fails on any field that the schema does not have."""
    return text_format.Parse(config, schema.ModelConfig())


def test_triton_itself_reads_the_config(tmp_path: Path, schema: ModuleType) -> None:
    for batch, kind in (("batch", TensorProto.FLOAT), (4, TensorProto.FLOAT16)):
        made = lse_export.write_triton(make(tmp_path / "m.onnx", batch, kind), tmp_path / str(batch))
        config = read(made.config, schema)
        assert config.name == "m"
        assert config.backend == "onnxruntime"
        assert config.max_batch_size == (32 if batch == "batch" else 0)
        dims = [3, 8, 8] if batch == "batch" else [4, 3, 8, 8]
        assert list(config.input[0].dims) == list(config.output[0].dims) == dims
        wanted = schema.DataType.Value("TYPE_FP32" if kind == TensorProto.FLOAT else "TYPE_FP16")
        assert config.input[0].data_type == config.output[0].data_type == wanted
        assert config.HasField("dynamic_batching") == (batch == "batch")
        assert list(config.model_warmup[0].inputs["image"].dims) == dims
        assert config.model_warmup[0].inputs["image"].random_data


def test_every_setting_is_in_the_config(tmp_path: Path, schema: ModuleType) -> None:
    made = lse_export.write_triton(
        make(tmp_path / "m.onnx"), tmp_path / "models", name="digits-1.2", max_batch_size=16,
        max_queue_delay_us=250, kind="cpu", instances=3,
    )  # fmt: skip
    config = read(made.config, schema)
    assert config.name == "digits-1.2"
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    (group,) = config.instance_group
    assert group.count == 3
    assert group.kind == schema.ModelInstanceGroup.KIND_CPU


def test_tensors_may_have_any_name(tmp_path: Path, schema: ModuleType) -> None:
    odd = 'a "b"\\é/\n0'
    proto = onnx.load(make(tmp_path / "m.onnx"))
    proto.graph.input[0].name = proto.graph.node[0].input[0] = odd
    onnx.save(proto, tmp_path / "m.onnx")
    config = read(lse_export.write_triton(tmp_path / "m.onnx", tmp_path / "models").config, schema)
    assert config.input[0].name == odd
    assert list(config.model_warmup[0].inputs) == [odd]


def test_names_that_are_no_folders(tmp_path: Path) -> None:
    for name in ("../up", "a/b", ".hidden", 'a "b"'):
        with pytest.raises(LSEError, match="no name for a model"):
            lse_export.write_triton(make(tmp_path / "m.onnx"), tmp_path / "models", name=name)
    assert [f.name for f in tmp_path.iterdir()] == ["m.onnx"]


def test_the_schema_refuses_what_triton_does_not_know(tmp_path: Path, schema: ModuleType) -> None:
    config = lse_export.write_triton(make(tmp_path / "m.onnx"), tmp_path / "models").config
    with pytest.raises(text_format.ParseError, match="max_batchsize"):
        read(config.replace("max_batch_size", "max_batchsize"), schema)


def test_a_fixed_batch_is_not_batched(tmp_path: Path) -> None:
    made = lse_export.write_triton(make(tmp_path / "m.onnx", 4), tmp_path / "models", warmup=False)
    assert made.max_batch_size == 0
    assert "dims: 4 dims: 3 dims: 8 dims: 8" in made.config
    assert "dynamic_batching" not in made.config
    assert "warmup" not in made.config


def test_a_plan_is_served_in_place_of_the_graph(tmp_path: Path) -> None:
    plan = tmp_path / "engine"
    plan.write_bytes(b"engine")
    made = lse_export.write_triton(make(tmp_path / "m.onnx"), tmp_path / "models", plan=plan)
    assert made.model.name == "model.plan"
    assert made.model.read_bytes() == b"engine"
    assert 'backend: "tensorrt"' in made.config


def test_a_plan_must_be_of_this_model(tmp_path: Path) -> None:
    path, plan = make(tmp_path / "m.onnx"), tmp_path / "e.plan"
    plan.write_bytes(b"engine")
    facts = EngineFacts(
        tensorrt="10.16.1.11", gpu="NVIDIA H200", compute_capability=(9, 0), precision="float32",
        profile={"image": ([1, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8])}, inputs={"image": "float32"},
        outputs={"logits": "float32"}, model="m.onnx", model_hash=model_hash(path),
        engine_hash=hashlib.sha256(b"engine").hexdigest(),
    )  # fmt: skip
    sidecar_of(plan).write_text(json.dumps(facts.plain()))
    assert lse_export.write_triton(path, tmp_path / "models", plan=plan).max_batch_size == 8
    with pytest.raises(LSEError, match="batches up to 8; got 'auto' and max_batch_size 9"):
        lse_export.write_triton(path, tmp_path / "others", plan=plan, max_batch_size=9)
    with pytest.raises(LSEError, match="runs on GPUs"):
        lse_export.write_triton(path, tmp_path / "others", plan=plan, kind="cpu")
    make(path, kind=TensorProto.FLOAT16)
    with pytest.raises(lse_export.ExportError, match="built from another model"):
        lse_export.write_triton(path, tmp_path / "others", plan=plan)
    assert not (tmp_path / "others").exists()


def test_weights_that_are_lost_leave_nothing_behind(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 64]) for n in "xy")
    weight = numpy_helper.from_array(np.ones(64, np.float32), "w")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=64)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(lse_export.ExportError, match="No such file"):
        lse_export.write_triton(tmp_path / "m.onnx", tmp_path / "models")
    assert not (tmp_path / "models").exists()


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
