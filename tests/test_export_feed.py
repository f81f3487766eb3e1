"""A site fed by the image exports like any other: the image is one more edge of the graph."""

from pathlib import Path

import onnxruntime as ort
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
