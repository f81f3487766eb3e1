"""TensorRT for RTX, for real: NVIDIA's own parser and builder, which need no GPU."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import helper
from PIL import Image
from torch import nn

import lse_export
from lse_core import Preprocess, attach
from lse_core.cli import main
from lse_core.errors import LSEError, UnknownNameError
from lse_export.commands import export
from lse_export.gate import check
from lse_export.gate.tables import load_table
from lse_export.tensorrt import Engine, read_facts
from lse_export.tensorrt.build import BuildOptions
from lse_export.tensorrt.library import load
from lse_export.tensorrt.network import parse, parsed_reports, read
from lse_export.tensorrt.rtx import capabilities, known_capabilities, layers_of
from lse_export.tensorrt.sidecar import check_files, check_machine, sidecar_of

pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT for RTX is not here: pip install 'lse-export[rtx]'", exc_type=ImportError
)

KNOWN = {
    # files that the gate refuses for TensorRT for RTX and NVIDIA builds, and why the gate does
    "an operator of ONNX Runtime": "some of these are built, but what else reads the file does not know them",
    "a name of ONNX in another domain": "the parser looks at names alone; the operator may be another",
    "float64": "it is built, and computes in float32 without a word",
}
"""Every difference between the gate and NVIDIA, by the file's name; one that is not listed is an error."""


def built(path: Path) -> tuple[bool, str]:
    """Whether NVIDIA's parser and builder take a file, and if not, what they say."""
    found = load("rtx")
    parsed = read(found, path)
    if parsed.refusals:
        return False, str(parsed.refusals[0])
    config = parsed.builder.create_builder_config()
    profile = parsed.builder.create_optimization_profile()
    for k in range(parsed.network.num_inputs):
        tensor = parsed.network.get_input(k)
        shape = [4 if size < 0 else size for size in tensor.shape]
        profile.set_shape(tensor.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = parsed.builder.build_serialized_network(parsed.network, config)
    return plan is not None, parsed.log.last()


def test_the_gate_agrees_with_nvidia(anyhow: str, odd: ModuleType, tmp_path: Path) -> None:
    make = odd.BROKEN[anyhow].make if anyhow in odd.BROKEN else odd.FINE[anyhow]
    path = make(tmp_path / "m.onnx")
    report = check(path, "tensorrt-rtx")
    if any(problem.rule == "valid" for problem in report.problems):
        # the gate is right, and NVIDIA's parser may crash on what is no valid ONNX
        assert not report.ok
        return
    taken, words = built(path)
    if anyhow in KNOWN:
        assert taken != report.ok, f"no difference any more: {[str(p) for p in report.problems]}, {words}"
    else:
        assert taken == report.ok, (
            f"NVIDIA: {words or 'builds it'}; gate: {[str(p) for p in report.problems]}"
        )


def test_known_differences_are_those_of_real_files(odd: ModuleType) -> None:
    assert KNOWN.keys() <= odd.BROKEN.keys() | odd.FINE.keys()


# building -------------------------------------------------------------------------------------------


@pytest.fixture
def source(odd: ModuleType, tmp_path: Path) -> Path:
    nodes = [odd.node("Conv", "x w", "c", pads=[1, 1, 1, 1]), odd.node("Relu", "c")]
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    return odd.build(tmp_path / "m.onnx", nodes, constants={"w": weight})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_engine_its_facts_and_its_layers(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "e.plan"
    made = lse_export.build_engine(source, out, flavour="rtx", axes={"batch": (1, 2, 4)})
    assert names(out.parent) == ["e.plan", "e.plan.json", "e.plan.layers.json"]
    assert out.stat().st_size > 1000
    facts = read_facts(out)
    assert facts == made.facts
    assert (facts.flavour, facts.gpu, facts.compute_capability) == ("rtx", "", (0, 0))
    assert facts.tensorrt == load("rtx").trt.__version__
    assert facts.profile == {"x": ([1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8])}
    assert facts.compute_capabilities[0] == "8.0"
    assert {"8.6", "8.9", "12.0"} <= set(facts.compute_capabilities)
    assert "7.5" not in facts.compute_capabilities
    check_files(facts, out, source)
    layers = json.loads(made.layers.read_text())["Layers"]
    assert len(layers) == made.layer_count > 0
    assert {"my_Conv", "my_Relu"} <= {node for layer in layers for node in layer["Nodes"]}
    tensors = [t for layer in layers for t in (*layer["Inputs"], *layer["Outputs"])]
    assert {"Name": "x", "Dimensions": [-1, 3, 8, 8], "Datatype": "Float"} in tensors
    # it is for the machines that it was built for, and the engine is loaded by no other release or GPU
    version = facts.tensorrt
    check_machine(facts, version, (8, 6), "RTX 3090")
    for here, capability, gpu, words in (
        (version, (9, 0), "NVIDIA H100", r"8\.0, 8\.6, .* and this is NVIDIA H100 \(9\.0\)"),
        (
            "1.6.0.1",
            (8, 6),
            "RTX 3090",
            rf"by TensorRT for RTX {version} and this is 1\.6\.0\.1",
        ),
    ):
        with pytest.raises(lse_export.ExportError, match=words):
            check_machine(facts, here, capability, gpu)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here; this is about machines without")
def test_engines_are_not_run_without_a_gpu_nor_by_triton(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.plan"
    facts = lse_export.build_engine(source, out, flavour="rtx").facts
    with pytest.raises(lse_export.ExportError, match="needs an NVIDIA GPU, but torch finds none"):
        lse_export.Engine(out)
    with pytest.raises(lse_export.ExportError, match="built by TensorRT for RTX, which Triton does not run"):
        lse_export.write_triton(source, tmp_path / "models", plan=out)
    # an engine of TensorRT 10 has no runtime cache
    sidecar_of(out).write_text(json.dumps(facts.plain() | {"flavour": "tensorrt"}))
    with pytest.raises(LSEError, match="only engines of TensorRT for RTX have a runtime cache"):
        lse_export.Engine(out, runtime_cache=tmp_path / "cache")
    sidecar_of(out).write_text(json.dumps({**facts.plain(), "flavour": "lean"}))
    with pytest.raises(lse_export.ExportError, match=r"does not describe an engine .*build it again"):
        read_facts(out)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here; this is about machines without")
def test_another_flavour_needs_a_gpu(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ten = replace(load("rtx"), trt=SimpleNamespace(__version__="10.16.1.11"))
    monkeypatch.setattr("lse_export.tensorrt.build.load", lambda flavour: ten)
    words = "needs an NVIDIA GPU, but torch finds none; flavour rtx builds for GeForce and RTX cards"
    with pytest.raises(lse_export.ExportError, match=words):
        lse_export.build_engine(source, tmp_path / "e.plan")
    assert names(tmp_path) == ["m.onnx"]


def test_compute_capabilities(source: Path, tmp_path: Path) -> None:
    made = lse_export.build_engine(
        source, tmp_path / "e.plan", flavour="rtx", compute_capabilities=["12.0", "8.6", "8.6"]
    )
    assert made.facts.compute_capabilities == ("8.6", "12.0")
    assert {"7.5", "8.0", "8.6", "8.9", "12.0"} <= set(known_capabilities())
    assert capabilities(["7.5"]) == ["7.5"]
    for unknown in ("9.0", "86", "all"):
        with pytest.raises(LSEError, match=rf"no compute capability '{unknown}'; it knows 7\.5, 8\.0, 8\.6"):
            capabilities([unknown])
    # 7.5 has no float32 products, which is for the compiler to say
    product = onnx.load(source)
    node = helper.make_node("MatMul", ["c", "c"], ["y"], name="product")
    product.graph.node.pop()
    product.graph.node.append(node)
    onnx.save(product, source)
    with pytest.raises(
        lse_export.ExportError, match=r"cannot build .*m\.onnx \(.*SM75.*FP32 GEMM is not supp"
    ):
        lse_export.build_engine(source, tmp_path / "t.plan", flavour="rtx", compute_capabilities=["7.5"])
    assert names(tmp_path) == ["e.plan", "e.plan.json", "e.plan.layers.json", "m.onnx"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"options": BuildOptions(refit=True)}, "does not take refit: without a GPU it cannot build"),
        ({"options": BuildOptions(version_compatible=True)}, "does not take version-compatible: the library"),
        (
            {"options": BuildOptions(hardware_compatible=True)},
            "does not take hardware-compatible: .*capab",
        ),
        ({"timing_cache": "kernels.cache"}, "does not take timing-cache: it times no kernels"),
        ({"device": "cuda:0"}, "does not take device: it builds for compute capabilities"),
        ({"compute_capabilities": ["9.0"]}, "no compute capability '9.0'"),
        (
            {"flavour": "tensorrt", "compute_capabilities": ["8.6"]},
            "for the GPU at hand; only flavour rtx",
        ),
    ],
)
def test_what_is_refused(given: dict, words: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(LSEError, match=words):
        lse_export.build_engine(source, tmp_path / "e.plan", **{"flavour": "rtx", **given})
    assert names(tmp_path) == ["m.onnx"]


def test_flavours_that_are_not_there(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"flavour of TensorRT 'rtc'\. Did you mean 'rtx'"):
        lse_export.build_engine(source, tmp_path / "e.plan", flavour="rtc")
    monkeypatch.setattr("lse_export.tensorrt.library.find_spec", lambda name: None)
    with pytest.raises(
        lse_export.ExportError, match=r"TensorRT for RTX is not installed: pip install 'lse-export\[rtx\]'"
    ):
        lse_export.build_engine(source, tmp_path / "e.plan", flavour="rtx")
    assert names(tmp_path) == ["m.onnx"]


def test_nvidias_words_and_the_name_of_the_node(odd: ModuleType, tmp_path: Path) -> None:
    path = odd.BROKEN["dilated average"].make(tmp_path / "m.onnx")
    words = r"TensorRT for RTX 1\..* cannot read .*m\.onnx: AveragePool 'my_AveragePool': .*dilations"
    with pytest.raises(lse_export.ExportError, match=words) as raised:
        parse(load("rtx"), path)
    assert "\n" not in str(raised.value)
    # the gate speaks first
    with pytest.raises(lse_export.ExportError, match=r"is not for TensorRT for RTX: .*my_AveragePool"):
        lse_export.build_engine(path, tmp_path / "e.plan", flavour="rtx")


@pytest.mark.parametrize(
    ("mode", "read_as"), [("linear", "LINEAR"), ("cubic", "CUBIC"), ("nearest", "NEAREST")]
)
def test_grid_samples_of_opset_20_are_read_as_they_are(
    mode: str, read_as: str, odd: ModuleType, tmp_path: Path
) -> None:
    """The gate refuses them for TensorRT 10 and 11, whose parser is said to take the nearest point."""
    inputs = {"x": (odd.F32, [1, 3, 8, 8]), "g": (odd.F32, [1, 4, 4, 2])}
    path = odd.build(tmp_path / "m.onnx", [odd.node("GridSample", "x g", mode=mode)], opset=20, inputs=inputs)
    found = load("rtx")
    parsed = parse(found, path)
    layers = [parsed.network.get_layer(k) for k in range(parsed.network.num_layers)]
    (layer,) = (layer for layer in layers if layer.type.name == "GRID_SAMPLE")
    layer.__class__ = found.trt.IGridSampleLayer
    assert layer.interpolation_mode.name == read_as


def test_the_parser_as_a_judge(odd: ModuleType, tmp_path: Path) -> None:
    def judged(name: str, *targets: str, strict: bool = True) -> list[lse_export.GateReport]:
        path = odd.BROKEN[name].make(tmp_path / "m.onnx")
        return parsed_reports([check(path, target) for target in targets], strict)

    (report,) = judged("RoiAlign", "tensorrt-rtx")
    assert report.parser.startswith("TensorRT for RTX 1.")
    assert [p.rule for p in report.problems] == ["refused", "parser"]
    assert "plugin was not found" in report.problems[1].what
    # its answers are nothing to TensorRT 10, and what is no valid ONNX is not handed to it
    rtx, ten = judged("RoiAlign", "tensorrt-rtx", "tensorrt10", strict=False)
    assert (bool(rtx.parser), ten.parser, [p.rule for p in ten.problems]) == (True, "", [])
    (invalid,) = judged("invalid graph", "tensorrt-rtx")
    assert (invalid.parser, [p.rule for p in invalid.problems]) == ("", ["valid"])
    with pytest.raises(LSEError, match="only targets of TensorRT have a parser"):
        judged("RoiAlign", "web")


def test_commands(source: Path, tmp_path: Path) -> None:
    def run(*args: object) -> str:
        done = CliRunner().invoke(export, [str(a) for a in args], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    text = run("check", source, "--target", "tensorrt-rtx", "--parse")
    assert "tensorrt-rtx: ok (2 nodes, opset 18, read by TensorRT for RTX 1." in text
    out = tmp_path / "e.plan"
    text = run("tensorrt", source, "--out", out, "--flavour", "rtx", "--compute-capability", "8.9")
    assert f"wrote {out}: TensorRT for RTX 1." in text
    assert "for compute capabilities 8.9\n" in text
    assert "layers in e.plan.layers.json" in text
    facts = json.loads(run("tensorrt", source, "--out", out, "--flavour", "rtx", "--force", "--json"))
    assert facts["flavour"] == "rtx"
    assert facts["layers"] > 0


# interrupted and without room: in processes of their own ---------------------------------------------

BUILD = "from lse_core.cli import main; main()"


def command(*args: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, "export", "tensorrt", *map(str, args), "--flavour", "rtx"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_ctrl_c_ends_a_build_and_leaves_nothing(odd: ModuleType, tmp_path: Path) -> None:
    """A build of some seconds, interrupted as soon as it has begun: its hidden folder is there."""
    rng = np.random.default_rng(0)
    nodes, constants, last = [], {}, "x"
    for k in range(60):
        constants[f"w{k}"] = rng.normal(size=(3, 3, 3 + k % 3 * 2, 3)).astype(np.float32)
        pads = [1 + k % 3, 1, 1 + k % 3, 1]
        nodes += [helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"], pads=pads),
                  helper.make_node("Softmax", [f"c{k}"], [f"s{k}"], axis=1 + k % 3)]  # fmt: skip
        last = f"s{k}"
    nodes.append(helper.make_node("Relu", [last], ["y"]))
    path = odd.build(tmp_path / "m.onnx", nodes, constants=constants)
    running = command(path, "--out", tmp_path / "e.plan")
    began = time.monotonic()
    while len(names(tmp_path)) == 1:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() - began < 120
        time.sleep(0.01)
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, text = running.communicate(timeout=120)
    assert "Traceback" not in text
    assert running.returncode not in (0, -signal.SIGSEGV, -signal.SIGABRT), text
    assert names(tmp_path) == ["m.onnx"]


def test_ctrl_c_while_a_file_is_read(source: Path) -> None:
    """The interrupt comes up in code that NVIDIA's parser called: it must not pass through it."""
    found = load("rtx")

    class Impatient(found.Log):
        def log(self, severity: object, message: str) -> None:
            if message.startswith("Parsing node"):
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)  # other tests of the process may have left one
    with pytest.raises(KeyboardInterrupt):
        read(replace(found, Log=Impatient), source)
    assert signal.getsignal(signal.SIGINT) is before
    assert not read(found, source).refusals


def test_a_full_disk_is_one_line(source: Path, tmp_path: Path) -> None:
    command = ["export", "tensorrt", str(source), "--out", str(tmp_path / "e.plan"), "--flavour", "rtx"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        done = CliRunner().invoke(main, command, standalone_mode=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.stderr == f"error: cannot write {tmp_path / 'e.plan'}: File too large\n"
    assert done.exit_code == 1
    assert names(tmp_path) == ["m.onnx"]


def test_the_table_is_that_of_the_parser_installed() -> None:
    table, found = load_table("tensorrt-rtx"), load("rtx")
    if found.trt.__version__ not in table.source:
        pytest.skip(f"{found.title} is here, the table is of {table.source}")
    builder = found.trt.Builder(found.Log())
    network = builder.create_network(1 << int(found.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = found.trt.OnnxParser(network, found.Log())
    ever = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    assert set(table.types) == {name for name in ever if parser.supports_operator(name)}


def test_layers_that_cannot_be_read_are_left_out() -> None:
    text = (
        "Layers:\nName: a, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [], Strides: [], "
        "Datatype: Half, Format: row major }], Constants: [], Outputs: [], TacticName: t, StreamId: 1, "
        "EventId: 2, Metadata: [ONNX Layer: p/q_0][ONNX Layer: r]\n\nI/O Tensors:\n Name: x, IOMode: Input"
    )
    tensor = {"Name": "x", "Dimensions": [], "Datatype": "Half"}
    layer = {"Name": "a", "LayerType": "kgen", "TacticName": "t", "StreamId": 1, "Nodes": ["p/q_0", "r"]}
    assert layers_of(text) == [{**layer, "Inputs": [tensor], "Constants": [], "Outputs": []}]
    assert layers_of("") == []


class Colours(nn.Module):
    """Scores of two classes: how red and how blue a picture is."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3))[:, ::2] * 3.0


@pytest.mark.parametrize("raw", [False, True])
def test_preprocessing_and_classes_go_into_the_engines_sidecar(tmp_path: Path, raw: bool) -> None:
    prepare = Preprocess(channels=3, size=(8, 8), crop_pct=0.8, mean=(0.3,) * 3, std=(0.2,) * 3)
    model = Colours().eval()
    attach(model, preprocess=prepare, class_names=("red", "blue"))
    path, plan = tmp_path / "model.onnx", tmp_path / "model.plan"
    source = {"preprocess": (12, 16)} if raw else {}
    lse_export.export_onnx(model, torch.zeros(1, 3, 8, 8), path, allow_plain=True, **source)
    facts = lse_export.build_engine(path, plan, flavour="rtx", compute_capabilities=["8.6"]).facts
    assert read_facts(plan) == facts
    engine = Engine.__new__(Engine)  # as it is after loading, which takes a GPU
    engine.facts, engine.device = facts, torch.device("cpu")
    assert engine.class_names == ["red", "blue"]
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(picture)
    found = engine.read([picture, picture])
    if raw:
        assert (found.dtype, found.shape) == (torch.uint8, (2, 12, 16, 3))
        assert np.array_equal(found[0].numpy(), np.asarray(Image.open(picture)))
    else:
        assert torch.equal(found, prepare.batch([picture, picture]))
    engine.facts = facts.model_copy(update={"metadata": {}})
    assert engine.class_names == []
    with pytest.raises(lse_export.ExportError, match=r"model\.onnx does not say how pictures are prepared"):
        engine.read([picture])
