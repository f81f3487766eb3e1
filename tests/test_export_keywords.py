"""A model whose stage is called by keyword exports like any other."""

from pathlib import Path

import torch
from torch import Tensor, nn

import lse_dec
import lse_export


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, hidden_states: Tensor, gain: float = 1.0) -> Tensor:
        return hidden_states + gain * self.conv(hidden_states).tanh()


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 6, 3, stride=2, padding=1), Block(), nn.Linear(6, 4)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.head(self.block(gain=0.5, hidden_states=self.stem(pixel_values)).mean((2, 3)))


def test_exported_and_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    adapted = lse_dec.adapt(
        Named().eval(), ["image", "block"], steps=2, segments=4, projection=4, widths=(8,)
    )
    with torch.no_grad():
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=1.0)
    path = tmp_path / "model.onnx"
    images = torch.randn(3, 3, 32, 32)
    lse_export.export_onnx(adapted, images, path)
    assert lse_export.verify(path, adapted, images).relative < 1e-4
    with torch.no_grad():
        assert (adapted(pixel_values=images) - lse_dec.unadapt(adapted)(images)).abs().max() > 1e-4
