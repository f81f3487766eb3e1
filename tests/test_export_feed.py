"""Sites fed by the image, and coupled warps, in ONNX."""

from pathlib import Path

import onnxruntime as ort
import pytest
import timm
import torch

import lse_dec
import lse_export


def test_a_site_fed_by_the_image_goes_to_onnx(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = timm.create_model("resnet10t", num_classes=5)
    model = lse_dec.adapt(base, "layer2", feed="image", rule="compose", steps=2, segments=4, resolution=8)
    with torch.no_grad():
        model.canonicalizers["layer2"].update.head.weight.normal_(std=4.0)
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad(), lse_dec.observe(model.eval()) as found:
        expected = model(x)
    warp = found["layer2"].warp
    assert (warp.x.values - warp.x.knots).abs().max() > 1e-3
    lse_export.export_onnx(model, x[:2], tmp_path / "model.onnx")
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert abs(logits - expected.numpy()).max() < 1e-4
    assert lse_export.check(tmp_path / "model.onnx").ok


def coupled(**options: str) -> lse_dec.AdaptedModel:
    torch.manual_seed(0)
    base = timm.create_model("resnet10t", num_classes=5)
    model = lse_dec.adapt(
        base, "layer2", warp="grid", steps=2, segments=3, resolution=8, mode="equivariant", **options
    )
    with torch.no_grad():
        model.canonicalizers["layer2"].update.head.weight.normal_(std=0.3)
    return model.eval()


def test_a_coupled_warp_needs_grid_sample(tmp_path: Path) -> None:
    model, path = coupled(), tmp_path / "model.onnx"
    x = torch.randn(3, 3, 64, 64)
    made = lse_export.export_onnx(model, x[:2], path)
    assert made.ops["GridSample"] >= 3  # one a step, one at the site
    (logits,) = ort.InferenceSession(str(path)).run(None, {"image": x.numpy()})
    with torch.no_grad():
        assert abs(logits - model(x).numpy()).max() < 1e-3


def test_what_no_graph_holds_is_refused(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 64, 64)
    with pytest.raises(lse_export.ExportError, match="leave with_warps out, or adapt with warp='separable'"):
        lse_export.export_onnx(coupled(), x, tmp_path / "model.onnx", with_warps=True)
    with pytest.raises(lse_export.ExportError, match="export with inverse='axes' or warp='separable'"):
        lse_export.export_onnx(coupled(inverse="refined"), x, tmp_path / "model.onnx")
