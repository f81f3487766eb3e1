"""torchvision's and transformers' models, adapted, exported to ONNX and equal there."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import transformers
from torch import nn

import lse_dec
import lse_export

TOKENS: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_labels": 5,
}


def vit() -> nn.Module:
    config = transformers.ViTConfig(**TOKENS, intermediate_size=48)
    return transformers.ViTForImageClassification(config)


def registers() -> nn.Module:
    config = transformers.Dinov2WithRegistersConfig(**TOKENS, mlp_ratio=2, num_register_tokens=3)
    return transformers.Dinov2WithRegistersForImageClassification(config)


def swin() -> nn.Module:
    config = transformers.SwinConfig(
        image_size=64, embed_dim=12, depths=[1, 1], num_heads=[2, 4], window_size=4, num_labels=5
    )
    return transformers.SwinForImageClassification(config)


def segformer() -> nn.Module:
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16,
        num_labels=5,
    )
    return transformers.SegformerForSemanticSegmentation(config)


def torchvision_vit() -> nn.Module:
    model = torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 48, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # torchvision begins with zeros
    return model


def torchvision_swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [2, 4], [4, 4], num_classes=5)


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (vit, "invariant"),
        (registers, "equivariant"),
        (swin, "equivariant"),
        (segformer, "equivariant"),
        (torchvision_vit, "invariant"),
        (torchvision_swin, "invariant"),
    ],
)
def test_exported_and_equal(make: Any, mode: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make().eval()
    size = 64 if make in (swin, segformer, torchvision_swin) else 32
    images, path = torch.randn(2, 3, size, size), tmp_path / "model.onnx"
    with torch.no_grad():
        plain = model(images)
        adapted = lse_dec.adapt(model, mode=mode, steps=2, segments=4, projection=4, widths=(8,))
        assert len(adapted.sites) == 2
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=1.0)
        moved = adapted(images)
    if not isinstance(plain, torch.Tensor):
        plain, moved = plain.logits, moved.logits
    assert (plain - moved).abs().max() > 1e-5
    report = lse_export.export_onnx(adapted, images, path)
    assert not {"GridSample", "Loop", "If", "Scan"} & set(report.ops)
    assert lse_export.verify(path, adapted, torch.randn(3, 3, size, size)).relative < 1e-4
