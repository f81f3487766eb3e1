"""Files that somebody else made, and not by mistake: where they point to, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lse_export
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
    for place, words in (("folder", "no regular file"), ("absent", "No such file")):
        with pytest.raises(lse_export.ExportError, match=words):
            model_hash(with_weights_at(tmp_path / "m.onnx", place))


@pytest.mark.parametrize("name", ["model.onnx", "model.plan", "config.pbtxt", "labels.txt", "Config.pbtxt"])
def test_weights_take_no_other_files_place(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(16))
    path = with_weights_at(tmp_path / "m.onnx", name)
    with pytest.raises(lse_export.ExportError, match="needs for another file"):
        lse_export.write_triton(path, tmp_path / "models")
    assert not (tmp_path / "models").exists()
