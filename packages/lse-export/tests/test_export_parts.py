"""The pieces around an export: whole files, sessions that run where asked, pictures as tensors."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import lse_export
from lse_core.errors import LSEError, UnknownNameError
from lse_export import to_onnx
from lse_export.bench import interleaved
from lse_export.loading import images_for, load_model
from lse_export.runtime import open_session, run
from lse_export.trace import clean
from lse_export.unroll import evaluating, with_steps
from lse_export.verification import edge_inputs


def doubling(path: Path) -> Path:
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 2, 2])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1, 2, 2])
    graph = helper.make_graph([helper.make_node("Add", ["image", "image"], ["logits"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


# files --------------------------------------------------------------------------------------------


def test_weights_too_large_for_one_message_lie_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "LARGEST_MESSAGE", 1000)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
    images = torch.rand(2, 3, 8, 8)
    lse_export.export_onnx(model, images, tmp_path / "m.onnx", allow_plain=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx").stat().st_size < 3 * 8 * 8 * 4 * 4
    assert lse_export.verify(tmp_path / "m.onnx", model, images).ok


# sessions -----------------------------------------------------------------------------------------


def test_session_runs_and_says_where(tmp_path: Path) -> None:
    session = open_session(doubling(tmp_path / "m.onnx"), threads=1)
    assert session.get_providers() == ["CPUExecutionProvider"]
    x = torch.rand(3, 1, 2, 2)
    assert torch.equal(run(session, x)["logits"], 2 * x)


def test_unusable_files_and_providers(tmp_path: Path) -> None:
    with pytest.raises(lse_export.ExportError, match="no such file"):
        open_session(tmp_path / "absent.onnx")
    good = doubling(tmp_path / "good.onnx")
    (tmp_path / "cut.onnx").write_bytes(good.read_bytes()[:-9])
    (tmp_path / "text.onnx").write_text("no model at all")
    for name in ("cut.onnx", "text.onnx"):
        with pytest.raises(lse_export.ExportError, match="ONNX Runtime cannot load it") as caught:
            open_session(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'cuda'\?"):
        open_session(good, "cudaa")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be able to run it")
def test_no_silent_fallback_to_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(lse_export.ExportError, match=r"fell back to|has no provider"):
        open_session(doubling(tmp_path / "m.onnx"), "cuda")


def test_verify_refuses_a_file_of_another_model(tmp_path: Path) -> None:
    path = doubling(tmp_path / "m.onnx")
    x = torch.rand(2, 1, 2, 2)

    class Double(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    assert lse_export.verify(path, Double(), x).max_abs_diff == 0.0
    with pytest.raises(lse_export.ExportError, match="not made from this model"):
        lse_export.verify(path, nn.Flatten(), x)
    with pytest.raises(lse_export.ExportError, match="image shape is fixed"):
        lse_export.verify(path, Double(), torch.rand(2, 1, 4, 4))
    with pytest.raises(LSEError, match="batch sizes"):
        lse_export.verify(path, Double(), x, batch_sizes=())


def test_edge_inputs_are_what_they_are_called() -> None:
    like = torch.rand(2, 3, 4, 4) * 2 - 1
    edges = edge_inputs(like, 5)
    assert {k: tuple(v.shape) for k, v in edges.items()} == dict.fromkeys(edges, (5, 3, 4, 4))
    assert edges["constant"].flatten(1).std(1).abs().max() == 0
    assert torch.equal(edges["extreme"].abs(), torch.full((5, 3, 4, 4), 4 * float(like.abs().max())))
    assert like.min() <= edges["random"].min()
    assert edges["random"].max() <= like.max()


# the graph ----------------------------------------------------------------------------------------


def test_cleaning_removes_notes_and_names_nodes_by_module() -> None:
    node = helper.make_node("Relu", ["a"], ["b"], name="node_relu_17", doc_string="/home/me/model.py")
    scopes = "['', 'model.stage', 'model.stage.act', 'relu']"
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/me/model.py")
    plain = helper.make_node("Relu", ["b"], ["c"])
    model = helper.make_model(helper.make_graph([node, plain], "g", [], []))
    clean(model)
    assert [n.name for n in model.graph.node] == ["stage.act/Relu_0", "Relu_0"]
    assert b"/home/me" not in model.SerializeToString()


# the model ----------------------------------------------------------------------------------------


def test_eval_mode_is_borrowed_module_by_module() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with evaluating(model):
        assert not any(m.training for m in model.modules())
        assert not torch.is_grad_enabled()
    assert [m.training for m in model.modules()] == [True, True, False, False]
    assert torch.is_grad_enabled()


def test_steps_come_back_after_an_error() -> None:
    model = nn.Module()
    model.canonicalizers = {"a": nn.Module(), "b": nn.Module()}
    model.canonicalizers["a"].steps, model.canonicalizers["b"].steps = 5, 7

    def stop_half_way() -> None:
        with with_steps(model, {"b": 2}):
            assert [c.steps for c in model.canonicalizers.values()] == [5, 2]
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        stop_half_way()
    assert [c.steps for c in model.canonicalizers.values()] == [5, 7]
    with pytest.raises(LSEError, match="sites that iterate are a, b"), with_steps(model, {"c": 2}):
        pass
    with pytest.raises(LSEError, match="sites that iterate are none"), with_steps(nn.Identity(), 2):
        pass


# pictures -----------------------------------------------------------------------------------------


def test_images_for_a_model_that_says_little() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    with pytest.raises(lse_export.ExportError, match="does not say what images it takes"):
        images_for(model)
    assert images_for(model, (8, 9)).shape == (2, 1, 8, 9)
    with pytest.raises(lse_export.ExportError, match=r"lse_dec\.save\(\.\.\., preprocess"):
        images_for(model, (8, 9), [Path("a.png")])
    model.pretrained_cfg = {"input_size": (1, 32, 48), "mean": (0.1,), "std": (0.2,)}
    assert images_for(model).shape == (2, 1, 32, 48)


def test_a_model_that_nobody_can_load(tmp_path: Path) -> None:
    with pytest.raises(lse_export.ExportError, match="no such file or folder"):
        load_model(tmp_path / "nothing")
    with pytest.raises(lse_export.ExportError, match="no model that an installed package can load"):
        load_model(tmp_path)


def test_interleaving_takes_turns() -> None:
    order: list[str] = []
    seconds = interleaved([lambda: order.append("a"), lambda: order.append("b")], rounds=2, warmup=1)
    assert order == ["a", "b"] * 3
    assert [len(s) for s in seconds] == [2, 2]


def test_dense_outputs_are_compared_pixel_by_pixel(tmp_path: Path) -> None:
    class Dense(nn.Module):
        def __init__(self, extra: float) -> None:
            super().__init__()
            self.extra = torch.tensor([[0.0, 0.0], [extra, 0.0]])

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([image, 0.5 * image + self.extra], 1)

    path, images = tmp_path / "m.onnx", torch.rand(3, 1, 2, 2) + 1.0
    lse_export.export_onnx(Dense(9.0), images, path, allow_plain=True)  # another class at one of four pixels
    report = lse_export.verify(path, Dense(0.0), images, throw=False)
    assert not report.ok
    assert report.argmax_agreement == 0.75
    assert report.max_abs_diff == pytest.approx(9.0)
