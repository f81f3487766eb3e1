"""What export_onnx refuses: one clear line each, and nothing left on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_export
from lse_core.errors import DTypeError, LSEError, NotFiniteError, OutputError, ShapeError
from lse_dec import adapt, unadapt


def pictures(n: int, channels: int = 3, size: int = 64) -> Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=64, patch_size=8, depth=1, embed_dim=48, num_classes=10
    )


def fresh() -> nn.Module:
    return adapt(vit(), ["image"], steps=1, resolution=8, segments=4)


def test_plain_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(lse_export.ExportError, match=r"has no canonicalizers: adapt it"):
        lse_export.export_onnx(vit(), pictures(2), tmp_path / "m.onnx")
    with pytest.raises(lse_export.ExportError, match="has no canonicalizers"):
        lse_export.export_onnx(unadapt(fresh()), pictures(2), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_plain_model_on_demand(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.Flatten()).eval()
    report = lse_export.export_onnx(model, pictures(1), tmp_path / "m.onnx", allow_plain=True)
    assert "lse.solver" not in report.metadata
    assert lse_export.verify(tmp_path / "m.onnx", model, pictures(3)).ok


@pytest.mark.parametrize(
    ("example", "error", "words"),
    [
        (pictures(1)[0], ShapeError, r"\(batch, channels, height, width\)"),
        (pictures(1, channels=1), ShapeError, "expected images"),
        (pictures(1, size=48), lse_export.ExportError, "fails on an example of shape"),
        (pictures(1).fill_(float("nan")), NotFiniteError, "NaN or infinite"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), DTypeError, "images of a floating dtype"),
        (torch.zeros(0, 3, 64, 64), ShapeError, "got shape"),
        ("photo.png", DTypeError, "must be a tensor"),
    ],
)
def test_bad_examples(tmp_path: Path, example: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        lse_export.export_onnx(fresh(), example, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_bad_steps(tmp_path: Path, steps: object) -> None:
    with pytest.raises(LSEError, match="whole number of at least 1"):
        lse_export.export_onnx(fresh(), pictures(1), tmp_path / "m.onnx", steps=steps)


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(LSEError, match="opset must be at least 18"):
        lse_export.export_onnx(fresh(), pictures(1), tmp_path / "m.onnx", opset=17)
    with pytest.raises(LSEError, match="1 outputs, but 2 output names were given"):
        lse_export.export_onnx(fresh(), pictures(1), tmp_path / "m.onnx", output_names=["a", "b"])


def test_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        lse_export.export_onnx(fresh(), pictures(1), path)
    with pytest.raises(OutputError, match="is a folder"):
        lse_export.export_onnx(fresh(), pictures(1), tmp_path)
    # a failure after the go-ahead to overwrite keeps the old file too
    with pytest.raises(NotFiniteError):
        lse_export.export_onnx(fresh(), pictures(1) * torch.inf, path, overwrite=True)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_solver_that_stops_by_its_values_is_refused(tmp_path: Path) -> None:
    class Impatient:
        def init(self, z: Tensor) -> None:
            return None

        def step(self, z: Tensor, fz: Tensor, state: None) -> tuple[Tensor, None]:
            return (fz, None) if bool((fz - z).abs().max() > 1e-3) else (z, None)

    model = adapt(vit(), ["image"], solver=Impatient(), steps=2, resolution=8, segments=4)
    with pytest.raises(lse_export.ExportError, match="fixed number of steps"):
        lse_export.export_onnx(model, pictures(2), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
