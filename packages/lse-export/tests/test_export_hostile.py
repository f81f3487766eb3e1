"""Files that somebody else made, and not by mistake: where they point to, and what they say of themselves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

import lse_export
from lse_core.errors import LSEError, LSEWarning
from lse_export.loading import images_for
from lse_export.metadata import FileFacts
from lse_export.predict import predict
from lse_export.runtime import open_session, run
from lse_export.tensorrt import Engine
from lse_export.tensorrt.sidecar import model_hash


def with_weights_at(path: Path, location: str) -> Path:
    """A model that adds weights kept in the file `location`."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in ("image", "logits"))
    weights = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(weights, location)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    node = helper.make_node("Add", ["image", "w"], ["logits"])
    graph = helper.make_graph([node], "g", [x], [y], [weights])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(proto.SerializeToString())
    return path


# places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["../owned", "in/../../owned", "/absolute", "link", "..\\owned", "c:\\x", ""]
)
def test_weights_outside_of_the_folder_are_not_followed(place: str, tmp_path: Path) -> None:
    (tmp_path / "owned").write_bytes(bytes(16))
    folder = tmp_path / "m"
    (folder / "in").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "owned")
    path = with_weights_at(folder / "m.onnx", str(tmp_path / "owned") if place == "/absolute" else place)
    for use in (model_hash, lambda p: lse_export.write_triton(p, tmp_path / "models")):
        with pytest.raises(lse_export.ExportError, match="outside of its folder"):
            use(path)
    assert not (tmp_path / "models").exists()


def test_weights_that_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for place, words in (("folder", "not a regular file"), ("absent", "No such file")):
        with pytest.raises(lse_export.ExportError, match=words):
            model_hash(with_weights_at(tmp_path / "m.onnx", place))


@pytest.mark.parametrize("name", ["model.onnx", "model.plan", "config.pbtxt", "labels.txt", "Config.pbtxt"])
def test_weights_take_no_other_files_place(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(16))
    path = with_weights_at(tmp_path / "m.onnx", name)
    with pytest.raises(lse_export.ExportError, match="needs for another file"):
        lse_export.write_triton(path, tmp_path / "models")
    assert not (tmp_path / "models").exists()


# what files say of themselves ---------------------------------------------------------------------

DEEP = "[" * 100_000
PREPARED = {"channels": 3, "size": [4, 4], "mean": [0.5] * 3, "std": [0.5] * 3}


def saying(path: Path, kind: int = TensorProto.FLOAT, batch: object = "batch", **facts: object) -> Path:
    """A model of two scores for images of 4 x 4 pixels, with metadata; what is no text becomes JSON."""
    shape = [batch, 3, 4, 4] if kind == TensorProto.FLOAT else [batch, 4, 4, 3]
    x = helper.make_tensor_value_info("image", kind, shape)
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 2])
    weights = numpy_helper.from_array(np.ones((48, 2), np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["image"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["number"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [weights])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    told = {f"lse.{k}": v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
    helper.set_model_props(proto, told)
    onnx.save(proto, path)
    return path


class Summed(nn.Module):
    """What `saying` writes."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1).sum(1, keepdim=True).expand(-1, 2)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(path)
    return path


def check_line(error: pytest.ExceptionInfo[LSEError], path: Path) -> None:
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "names", ["no JSON", "5", "null", DEEP, '{"0": "a"}', "[null, {}]", r'["\ud800", "b"]', '["a", "b", "c"]']
)
def test_damaged_names_of_classes(names: str, picture: Path, tmp_path: Path) -> None:
    path = saying(tmp_path / "m.onnx", preprocess=PREPARED, class_names=names)
    words = "name 3 classes, but it gives 2 scores" if "c" in names else "lse.class_names are damaged; export"
    for use in (
        lambda: predict(path, [picture]),
        lambda: lse_export.write_triton(path, tmp_path / "models"),
    ):
        with pytest.raises(lse_export.ExportError, match=words) as error:
            use()
        check_line(error, path)
    if "c" not in names:
        facts = SimpleNamespace(metadata={"lse.class_names": names}, model="m.onnx")
        with pytest.raises(lse_export.ExportError, match="are damaged; export it again"):
            Engine.class_names.fget(SimpleNamespace(facts=facts))


def test_classes_without_a_name_are_numbers(picture: Path, tmp_path: Path) -> None:
    path = saying(tmp_path / "m.onnx", preprocess=PREPARED, class_names=["a"])
    assert sorted(predict(path, [picture])[0].classes) == ["1", "a"]
    made = lse_export.write_triton(path, tmp_path / "models")
    assert (made.folder / "labels.txt").read_text() == "a\n1\n"
    assert FileFacts("m").class_names(3) == []


@pytest.mark.parametrize(
    "facts",
    [
        {"preprocess": DEEP},
        {"preprocess": []},
        {"preprocess": "NaN"},
        {"preprocess": {**PREPARED, "size": [10**9, 10**9]}},
        {"preprocess": {**PREPARED, "crop_pct": 1e-308}},
        {"mean": 5, "std": 5},
        {"mean": "x", "std": [0.5]},
        {"mean": [], "std": [0.5]},
        {"mean": ["a"], "std": [0.5]},
        {"preprocess": PREPARED, "height": 5},
        {"preprocess": PREPARED, "height": [8, None]},
        *({"preprocess": PREPARED, "raw_pictures": v} for v in ([], 5, None, "x", DEEP)),
    ],
    ids=lambda facts: str(facts)[:60],
)
def test_damaged_preprocessing(facts: dict[str, object], picture: Path, tmp_path: Path) -> None:
    path = saying(tmp_path / "m.onnx", **facts)
    with pytest.raises(lse_export.ExportError, match="export it again") as error:
        predict(path, [picture])
    check_line(error, path)


def test_a_size_that_only_the_file_has(picture: Path, tmp_path: Path) -> None:
    path = saying(tmp_path / "m.onnx", preprocess={**PREPARED, "size": None})
    assert predict(path, [picture])[0].classes == ["0", "1"]


@pytest.mark.parametrize("source", [[5, 4], [60_000, 60_000]])
def test_raw_pictures_that_the_file_does_not_take(source: list[int], picture: Path, tmp_path: Path) -> None:
    facts = {"preprocess": PREPARED, "raw_pictures": {"source": source, "layout": "nhwc"}}
    for kind, fine in ((TensorProto.UINT8, False), (TensorProto.FLOAT, False), (TensorProto.UINT8, True)):
        if fine:
            facts["raw_pictures"] = {"source": [4, 4], "layout": "nhwc"}
        path = saying(tmp_path / "m.onnx", kind, **facts)
        if fine:
            with pytest.warns(LSEWarning, match="do not have the size"):
                predict(path, [picture])
            assert images_for(Summed(), file=path).shape == (2, 4, 4, 3)
            continue
        for use in (
            lambda path=path: predict(path, [picture]),
            lambda path=path: images_for(Summed(), file=path),
            lambda path=path: lse_export.verify(path, Summed(), torch.zeros(1, 4, 4, 3, dtype=torch.uint8)),
            lambda path=path: lse_export.write_triton(path, tmp_path / "models"),
        ):
            with pytest.raises(
                lse_export.ExportError, match=r"lse\.raw_pictures tell of raw pictures"
            ) as error:
                use()
            check_line(error, path)


@pytest.mark.parametrize(
    "facts",
    [
        {"settings": []},
        {"settings": {"a": 5}},
        {"settings": {"a": {"steps": "7"}}},
        {"settings": {"a": {"steps": 0}}},
        {"settings": DEEP},
        {"height": 5},
        {"width": ["a", None]},
        {"width": [1, 2, 3]},
        {"height": {}},
    ],
    ids=lambda facts: str(facts)[:40],
)
def test_verification_of_a_damaged_file(facts: dict[str, object], tmp_path: Path) -> None:
    path = saying(tmp_path / "m.onnx", **facts)
    (key,) = facts
    with pytest.raises(lse_export.ExportError, match=rf"lse\.{key} are damaged; export it again") as error:
        lse_export.verify(path, Summed(), torch.rand(2, 3, 4, 4))
    check_line(error, path)


def test_what_onnx_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    session = open_session(saying(tmp_path / "m.onnx"))
    with pytest.raises(lse_export.ExportError, match="ONNX Runtime cannot run the file on") as error:
        run(session, torch.rand(2, 3, 5, 4))
    assert "\n" not in str(error.value)


def test_a_file_without_inputs_takes_no_pictures(picture: Path, tmp_path: Path) -> None:
    proto = onnx.load(saying(tmp_path / "m.onnx"))
    proto.graph.initializer.add().CopyFrom(
        numpy_helper.from_array(np.ones((1, 3, 4, 4), np.float32), "image")
    )
    del proto.graph.input[:]
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(lse_export.ExportError, match="has 0 inputs; only files that take images alone"):
        predict(tmp_path / "m.onnx", [picture])
    with pytest.raises(lse_export.ExportError, match="0 inputs, not one"):
        run(open_session(tmp_path / "m.onnx"), torch.rand(1, 3, 4, 4))


def test_pictures_too_large_to_prepare(tmp_path: Path) -> None:
    model = Summed()
    model.pretrained_cfg = {"input_size": (3, 4, 4)}
    for source, words in (((100_000, 100_000), "65536"), ((60_000, 60_000), "too large a matrix")):
        with pytest.raises(LSEError, match=words) as error:
            lse_export.export_onnx(
                model, torch.rand(1, 3, 4, 4), tmp_path / "m.onnx", allow_plain=True, preprocess=source
            )
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
