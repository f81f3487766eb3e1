"""What of the TensorRT path needs no TensorRT: profiles, sidecars, refusals; nothing is left half-written."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import lse_export
from lse_core.cli import main
from lse_core.errors import DTypeError, LSEError, ShapeError, UnknownNameError
from lse_export.commands import export
from lse_export.gate.graph import open_model
from lse_export.tensorrt import EngineFacts, read_facts
from lse_export.tensorrt.build import BuildOptions, pass_gate, precision_of
from lse_export.tensorrt.engine import check_inputs
from lse_export.tensorrt.library import BuildProgress, require_gpu
from lse_export.tensorrt.sidecar import (
    check_files,
    check_machine,
    model_hash,
    parse_axis,
    profile_shapes,
    sidecar_of,
)

GPU = "NVIDIA H200"


def make(path: Path, shape: tuple[object, ...] = ("batch", 3, 8, 8), op: str = "Relu") -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "y")]
    graph = helper.make_graph(
        [helper.make_node(op, ["image"], ["y"], name="it")], "g", values[:1], values[1:]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def built(tmp_path: Path) -> tuple[EngineFacts, Path]:
    """An engine and its sidecar as `build_engine` leaves them; the engine's own bytes do not matter here."""
    source, plan = make(tmp_path / "m.onnx"), tmp_path / "engine.plan"
    plan.write_bytes(b"engine")
    facts = EngineFacts(
        tensorrt="10.16.1.11",
        gpu=GPU,
        compute_capability=(9, 0),
        precision="float32",
        profile={"image": ([1, 3, 8, 8], [8, 3, 8, 8], [32, 3, 8, 8])},
        inputs={"image": "float32"},
        outputs={"y": "float32"},
        model="m.onnx",
        model_hash=model_hash(source),
        engine_hash=hashlib.sha256(b"engine").hexdigest(),
    )
    sidecar_of(plan).write_text(json.dumps(facts.plain()))
    return facts, plan


@given(
    st.text(st.characters(exclude_characters="="), min_size=1),
    st.lists(st.integers(1, 999), min_size=3, max_size=3),
)
def test_ranges_are_read_as_they_are_written(name: str, sizes: list[int]) -> None:
    assert parse_axis(f"{name}={sizes[0]}:{sizes[1]}:{sizes[2]}") == (name, tuple(sizes))
    assert parse_axis(f"{name}={sizes[0]}") == (name, (sizes[0],) * 3)


@pytest.mark.parametrize(
    "text", ["batch", "=1:2:3", "batch=1:2", "batch=0:1:2", "batch=a:b:c", "batch=", "batch=-1"]
)
def test_other_ranges_are_refused(text: str) -> None:
    with pytest.raises(LSEError, match="write NAME=MIN:OPT:MAX"):
        parse_axis(text)


def test_profiles_follow_the_axes_of_the_file(tmp_path: Path) -> None:
    model = open_model(make(tmp_path / "m.onnx"))
    assert profile_shapes(model) == {"image": ([1, 3, 8, 8], [8, 3, 8, 8], [32, 3, 8, 8])}
    assert profile_shapes(model, {"batch": (2, 2, 4)})["image"][2] == [4, 3, 8, 8]
    with pytest.raises(UnknownNameError, match=r"axis that varies 'bath'\. Did you mean 'batch'"):
        profile_shapes(model, {"bath": (1, 2, 3)})
    with pytest.raises(LSEError, match="sizes must rise from 1; got 4, 2, 8"):
        profile_shapes(model, {"batch": (4, 2, 8)})


def test_axes_other_than_the_batch_must_be_told(tmp_path: Path) -> None:
    model = open_model(make(tmp_path / "m.onnx", ("batch", 3, "height", None)))
    with pytest.raises(
        lse_export.ExportError, match="axis 'height' of input 'image' varies and has no range"
    ):
        profile_shapes(model)
    shapes = profile_shapes(model, {"height": (8, 16, 32), "image.3": (4, 4, 4)})
    assert shapes == {"image": ([1, 3, 8, 4], [8, 3, 16, 4], [32, 3, 32, 4])}
    fixed = open_model(make(tmp_path / "f.onnx", (2, 3, 8, 8)))
    assert profile_shapes(fixed) == {"image": ([2, 3, 8, 8],) * 3}


def add(path: Path, kind: type[np.floating] = np.float32, listed: bool = False) -> Path:
    """y = x + w; `listed` names the weight among the inputs, as files of old versions do."""
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    x, y = (helper.make_tensor_value_info(n, number, ["batch", 64]) for n in ("x", "y"))
    weight = helper.make_tensor_value_info("w", number, [64])
    node, constant = (
        helper.make_node("Add", ["x", "w"], ["y"]),
        numpy_helper.from_array(np.ones(64, kind), "w"),
    )
    graph = helper.make_graph([node], "g", [x, weight] if listed else [x], [y], [constant])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=3 if listed else 10), path)
    return path


def test_weights_are_no_inputs(tmp_path: Path) -> None:
    assert list(profile_shapes(open_model(add(tmp_path / "m.onnx", listed=True)))) == ["x"]


def test_sidecars_are_read_as_they_were_written(built: tuple[EngineFacts, Path]) -> None:
    facts, plan = built
    assert read_facts(plan) == facts
    check_files(facts, plan)
    check_files(facts, plan, plan.parent / "m.onnx")
    check_machine(facts, "10.16.1.11", (9, 0), GPU)


def test_changed_files_are_noticed(built: tuple[EngineFacts, Path]) -> None:
    facts, plan = built
    other = make(plan.parent / "other.onnx", op="Sigmoid")
    with pytest.raises(lse_export.ExportError, match=r"built from another model than .*other.onnx"):
        check_files(facts, plan, other)
    plan.write_bytes(b"engin")
    with pytest.raises(lse_export.ExportError, match="was changed or truncated"):
        check_files(facts, plan)
    with pytest.raises(lse_export.ExportError, match="was changed or truncated"):
        lse_export.Engine(plan)
    sidecar_of(plan).write_text('{"tensorrt": "10"}')
    with pytest.raises(lse_export.ExportError, match="does not describe an engine"):
        read_facts(plan)
    sidecar_of(plan).write_text("[1, 2]")
    with pytest.raises(lse_export.ExportError, match="does not describe an engine"):
        read_facts(plan)
    sidecar_of(plan).unlink()
    with pytest.raises(lse_export.ExportError, match=r"engine.plan.json: no such file"):
        lse_export.Engine(plan)


def test_weights_beside_the_graph_are_part_of_the_model(tmp_path: Path) -> None:
    path = add(tmp_path / "m.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=64)
    before = model_hash(path)
    weights = bytearray((tmp_path / "w.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "w.bin").write_bytes(weights)
    assert model_hash(path) != before
    (tmp_path / "w.bin").unlink()
    with pytest.raises(lse_export.ExportError, match=r"cannot read .*w.bin: No such file"):
        model_hash(path)


@pytest.mark.parametrize(
    ("changes", "here", "words"),
    [
        ({}, ("11.4.0.106", (9, 0), GPU), "by TensorRT 10.16.1.11 and this is 11.4.0.106: another major"),
        ({"version_compatible": True}, ("11.4.0.106", (9, 0), GPU), "another major"),
        ({}, ("10.16.0.72", (9, 0), GPU), "or build it version-compatible"),
        ({"version_compatible": True}, ("10.9.0.34", (9, 0), GPU), "newer than 10.9.0.34 here; upgrade"),
        ({"version_compatible": True}, ("10.17.0.1", (9, 0), GPU), None),
        ({}, ("10.16.1.11", (8, 6), "RTX 3090"), r"\(compute capability 9.0\) and this is RTX 3090"),
        ({"hardware_compatible": True}, ("10.16.1.11", (8, 6), "RTX 3090"), None),
        ({"hardware_compatible": True}, ("10.16.1.11", (7, 5), "T4"), r"Ampere \(8.0\); this is T4 \(7.5\)"),
    ],
)  # fmt: skip
def test_engines_of_other_machines_are_refused(
    built: tuple[EngineFacts, Path],
    changes: dict[str, bool],
    here: tuple[str, tuple[int, int], str],
    words: str | None,
) -> None:
    facts = built[0].model_copy(update=changes)
    if words is None:
        check_machine(facts, *here)
        return
    with pytest.raises(lse_export.ExportError, match=words):
        check_machine(facts, *here)


def test_a_sister_gpu_is_warned_of(built: tuple[EngineFacts, Path]) -> None:
    with pytest.warns(UserWarning, match="tuned on NVIDIA H200 and may run slower on NVIDIA H100"):
        check_machine(built[0], "10.16.1.11", (9, 0), "NVIDIA H100")


def test_inputs_that_an_engine_cannot_take(built: tuple[EngineFacts, Path]) -> None:
    facts, cpu = built[0], torch.device("cpu")
    check_inputs(facts, {"image": torch.zeros(32, 3, 8, 8)}, cpu)
    with pytest.raises(
        ShapeError, match=r"within \[1, 3, 8, 8\] and \[32, 3, 8, 8\], the profile; .*\[33, 3, 8, 8\]"
    ):
        check_inputs(facts, {"image": torch.zeros(33, 3, 8, 8)}, cpu)
    with pytest.raises(ShapeError, match=r"its shape is \[3, 8, 8\]"):
        check_inputs(facts, {"image": torch.zeros(3, 8, 8)}, cpu)
    with pytest.raises(DTypeError, match=r"must be float32; it is torch.float16"):
        check_inputs(facts, {"image": torch.zeros(1, 3, 8, 8, dtype=torch.float16)}, cpu)
    with pytest.raises(DTypeError, match="must be on cpu; it is on meta"):
        check_inputs(facts, {"image": torch.zeros(1, 3, 8, 8, device="meta")}, cpu)
    with pytest.raises(LSEError, match="inputs are image; got picture"):
        check_inputs(facts, {"picture": torch.zeros(1, 3, 8, 8)}, cpu)


def test_the_gate_comes_before_tensorrt(tmp_path: Path) -> None:
    path = make(tmp_path / "m.onnx", op="Bernoulli")
    for major in (10, 11):
        with pytest.raises(
            lse_export.ExportError, match=rf"not for TensorRT {major}: .*Bernoulli 'it'.*no such operator"
        ):
            pass_gate(path, f"tensorrt{major}")
        pass_gate(make(tmp_path / "good.onnx"), f"tensorrt{major}")


def test_options_out_of_range() -> None:
    with pytest.raises(LSEError, match="workspace must be positive"):
        BuildOptions(workspace_gib=0)
    with pytest.raises(LSEError, match="within 0 and 5; got 6"):
        BuildOptions(optimization_level=6)


def test_precision_is_that_of_the_tensors(tmp_path: Path) -> None:
    assert precision_of(open_model(make(tmp_path / "m.onnx"))) == "float32"
    assert precision_of(open_model(add(tmp_path / "h.onnx", np.float16))) == "float16"


def test_progress_is_shown_and_an_interrupt_stops_the_build() -> None:
    with BuildProgress(hidden=True) as progress:
        progress.start("building", None, 2)
        progress.start("tactics", "building", 9)
        assert [(bar.text, bar.total) for bar in progress._levels] == [("building", 2), ("  tactics", 9)]
        assert progress.step("tactics", 0)
        progress.stopped = True
        assert not progress.step("tactics", 1)
        progress.finish("tactics")  # before all its steps
        progress.finish("building")
        progress.finish("building")
        progress.start("packing", None, 3)  # in the place of the phase that ended
        assert [(bar.text, bar.done) for bar in progress._levels] == [("packing", 0), ("  tactics", 2)]


def command(*args: str | Path) -> tuple[int, str]:
    """The command as a user runs it: exit status and what stderr says."""
    done = CliRunner().invoke(main, ["export", "tensorrt", *map(str, args)], standalone_mode=True)
    return done.exit_code, done.stderr.strip()


@pytest.mark.skipif(
    find_spec("tensorrt") is not None, reason="TensorRT is here; this is about machines without"
)
def test_without_tensorrt(tmp_path: Path) -> None:
    path = make(tmp_path / "m.onnx")
    status, text = command(path, "--out", tmp_path / "new" / "engine.plan")
    assert (status, text) == (1, "error: TensorRT is not installed: pip install 'lse-export[tensorrt]'")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_what_the_command_refuses_before_it_asks_for_tensorrt(tmp_path: Path) -> None:
    path, out = make(tmp_path / "m.onnx"), tmp_path / "engine.plan"
    out.write_text("there")
    (tmp_path / "short.onnx").write_bytes(path.read_bytes()[:-10])
    for args, words in (
        ((path, "--out", out), "exists already"),
        ((tmp_path / "absent.onnx", "--out", out, "--force"), "no such file"),
        ((tmp_path / "short.onnx", "--out", out, "--force"), "is truncated"),
        ((path, "--out", out, "--force", "--axis", "batch=3:1"), "write NAME=MIN:OPT:MAX"),
        ((path, "--out", out, "--force", "--axis", "width=3"), "Known: batch"),
        ((path, "--out", out, "--force", "--timing-cache", tmp_path), "is a folder"),
    ):
        run = CliRunner().invoke(export, ["tensorrt", *map(str, args)])
        assert isinstance(run.exception, LSEError), run.output
        assert words in str(run.exception)
    assert out.read_text() == "there"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["engine.plan", "m.onnx", "short.onnx"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here; this is about machines without")
def test_without_a_gpu() -> None:
    with pytest.raises(lse_export.ExportError, match="needs an NVIDIA GPU, but torch finds none"):
        require_gpu()
