"""`lse measure` across packages: ONNX files of any maker, adapted models, real weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import lse_dec
from lse_core import LSEError, Preprocess, attach, measure
from lse_core.cli import main
from lse_export.loading import load_model
from lse_export.onnx_model import OnnxModel

SIDE, CLASSES = 16, 5
HOW = Preprocess(channels=3, size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3, crop_mode="squash")
ORBIT: dict[str, Any] = {"orbit": (), "factors": (0.5, 1.0, 2.0), "ratios": (1.0, 2.0)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number in range(3):
        picture = np.kron(draw.integers(0, 256, (5, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        mask[10:26, 12:32] = 255
        Image.fromarray(picture).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}.mask.png")
    return folder


def weights() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    kernel = draw.normal(0, 0.3, (8, 3, 4, 4)).astype(np.float32)
    return kernel, draw.normal(0, 1, (CLASSES, 8)).astype(np.float32)


class Plain(torch.nn.Module):
    """The same network in torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, head = map(torch.from_numpy, weights())
        return torch.nn.functional.conv2d(x, kernel, stride=4).relu().amax((2, 3)) @ head.T


def foreign(
    path: Path, *, last: bool = False, softmax: bool = False, batch: int = 1, inputs: int = 1
) -> Path:
    """A file such as other exporters write: opset 11, its own names, a fixed batch, and no metadata."""
    kernel, head = weights()
    shape = [batch, SIDE, SIDE, 3] if last else [batch, 3, SIDE, SIDE]
    nodes = [helper.make_node("Transpose", ["serving_default_x"], ["t"], perm=[0, 3, 1, 2])] if last else []
    nodes += [
        helper.make_node("Conv", ["t" if last else "serving_default_x", "kernel"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalMaxPool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "head"], ["s"], transB=1),
        helper.make_node("Softmax" if softmax else "Identity", ["s"], ["q"]),
        helper.make_node("Identity", ["q"], ["StatefulPartitionedCall:0"]),
    ]
    more = [helper.make_tensor_value_info(f"extra{k}", TensorProto.FLOAT, [1]) for k in range(inputs - 1)]
    graph = helper.make_graph(
        nodes, "main", [helper.make_tensor_value_info("serving_default_x", TensorProto.FLOAT, shape), *more],
        [helper.make_tensor_value_info("StatefulPartitionedCall:0", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(head, "head")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "kind", [{}, {"last": True}, {"softmax": True}, {"batch": 4, "softmax": True, "last": True}]
)
def test_a_file_of_another_maker_is_measured_as_its_torch_model(
    kind: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    path = foreign(tmp_path / "foreign.onnx", **kind)
    ours, theirs = (measure(m, photos, preprocess=HOW, **ORBIT) for m in (Plain(), path))
    assert theirs.model == str(path)
    for one, other in zip(ours.sweeps, theirs.sweeps, strict=True):
        assert one.invariance_error is not None
        assert other.invariance_error is not None
        assert one.invariance_error.value > 1e-3
        assert other.invariance_error.value == pytest.approx(one.invariance_error.value, abs=1e-6)
        assert [case.answers for case in one.cases] == [case.answers for case in other.cases]
        for a, b in zip(one.cases, other.cases, strict=True):
            assert a.probability == pytest.approx(b.probability, abs=1e-5)


def test_the_command_asks_for_what_a_file_does_not_tell(photos: Path, tmp_path: Path) -> None:
    path = foreign(tmp_path / "foreign.onnx")
    args = ["measure", str(path), str(photos), "--orbit", "0", "--out", str(tmp_path / "out"), "--json"]
    bare = CliRunner().invoke(main, args)
    assert bare.exit_code == 1
    assert bare.stderr.strip().endswith(
        f"the model {path} does not say how its pictures are prepared: give --mean, --std "
        "(mean and std of pixels in [0, 1])"
    )
    told = CliRunner().invoke(main, [*args, "--mean", "0.5", "--std", "0.25"])
    assert told.exit_code == 0, told.stderr
    (found,) = json.loads(told.stdout)["measurements"]
    assert found["settings"]["preprocess"] == HOW.plain()
    assert found["classes"] == CLASSES
    several = foreign(tmp_path / "several.onnx", inputs=3)
    result = CliRunner().invoke(main, ["measure", str(several), str(photos)])
    assert "has 3 inputs (serving_default_x, extra0, extra1)" in result.stderr
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    (tmp_path / "text.onnx").write_text("no model")
    result = CliRunner().invoke(main, ["measure", str(tmp_path / "text.onnx"), str(photos)])
    assert "ONNX Runtime cannot load it" in result.stderr
    with pytest.raises(LSEError, match="is an exported file"):
        load_model(path)


def test_metadata_and_canonicalizers_are_used(photos: Path, tmp_path: Path) -> None:
    path = foreign(tmp_path / "ours.onnx")
    file = onnx.load(path)
    names = [f"class {k}" for k in range(CLASSES)]
    told = {"lse.preprocess": HOW.to_json(), "lse.class_names": json.dumps(names)}
    for key, value in told.items():
        file.metadata_props.add(key=key, value=value)
    onnx.save(file, path)
    model = lse_dec.adapt(Plain4(), sites=["image"], steps=2)
    with torch.no_grad():
        for parameter in model.canonicalizer_parameters():
            parameter.add_(0.2)  # so that its warps move points
    attach(model, preprocess=HOW)
    plain, adapted = measure(path, photos, **ORBIT), measure(model, photos, **ORBIT)
    assert plain.class_names == tuple(names)
    assert plain.settings["preprocess"] == HOW.plain()
    assert plain.sites == ()
    (site,) = adapted.sites
    assert site.name == "image"
    assert site.displacement_pixels > 0.01
    assert site.residual is not None


class Plain4(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = torch.nn.Conv2d(3, 8, 3)
            self.head = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x).relu().amax((2, 3)))  # type: ignore[no-any-return]


def test_files_that_take_bytes_are_given_bytes(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT)
    mean = helper.make_node("ReduceMean", ["f"], ["y"], axes=[1, 2], keepdims=0)
    graph = helper.make_graph(
        [cast, mean], "main", [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, 4, 6, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6),
        tmp_path / "b.onnx",
    )
    model = OnnxModel(tmp_path / "b.onnx")
    images = torch.rand(2, 3, 4, 6)
    torch.testing.assert_close(model(images), (images * 255).round().mean((2, 3)))
    from lse_core import preprocess_of

    how = preprocess_of(model)
    assert how is not None
    assert (how.size, how.mean, how.std) == ((4, 6), (0.0,) * 3, (1.0,) * 3)
