"""One file for every height and width: equal to the model at each, and refused where the model fixes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import lse_export
from lse_core.errors import LSEError
from lse_core.resample import unscale
from lse_dec import adapt, observe, save
from lse_dec.adaptation import AdaptedModel
from lse_export.commands import export

SIZES = [(64, 64), (64, 96), (128, 80)]


def pictures(n: int, height: int, width: int) -> Tensor:
    coarse = torch.randn(n, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    return smooth + torch.linspace(-1.0, 1.0, width)


def moving(base: nn.Module, sites: list[str]) -> AdaptedModel:
    """Adapted with updates that are not zero: where warps are the identity, parity means little."""
    model = adapt(base, sites, solver="naive", steps=2, resolution=8, segments=4, mode="equivariant").eval()
    torch.manual_seed(1)
    for canonicalizer in model.canonicalizers.values():
        nn.init.normal_(canonicalizer.update.head.weight, std=2.0)
    return model


def metadata(path: Path) -> dict[str, str]:
    return {prop.key: prop.value for prop in onnx.load(path).metadata_props}


def compare(path: Path, model: AdaptedModel, sizes: list[tuple[int, int]]) -> None:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for height, width in sizes:
        for batch in (1, 3):
            images = pictures(batch, height, width)
            with torch.no_grad(), observe(model) as answers:
                expected = model(images).numpy()
            for site, answer in answers.items():
                ramp = torch.linspace(0, 1, width).expand(batch, 1, height, width)
                moved = (unscale(ramp, answer.warp) - ramp).abs().amax()
                assert moved > 0.01, f"{site} moves nothing"
            (logits,) = session.run(None, {"image": images.numpy()})
            assert abs(logits - expected).max() <= 1e-4 * (expected.max() - expected.min()), (height, width)


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> tuple[AdaptedModel, Path]:
    torch.manual_seed(0)
    model = moving(timm.create_model("resnet10t", num_classes=10), ["image", "layer1"])
    folder = tmp_path_factory.mktemp("convolutional")
    save(model, folder / "model")
    out = folder / "any.onnx"
    command = ["onnx", str(folder / "model"), "--out", str(out), "--dynamic-size", "--size", "64", "80"]
    done = CliRunner().invoke(export, command)
    assert done.exit_code == 0, done.exception
    assert "size      height from 29, width from 29" in done.stdout
    assert re.search(
        r"\d+ nodes \(\d+ of canonicalizers, .* a solver step\), .* s \(trace .*, write", done.stdout
    )
    return model, out


def test_equal_to_the_model_at_every_size(convolutional: tuple[AdaptedModel, Path]) -> None:
    model, path = convolutional
    least = json.loads(metadata(path)["lse.height"])[0]
    compare(path, model, [*SIZES, (least, least)])


def test_axes_are_named_and_bounds_told(convolutional: tuple[AdaptedModel, Path]) -> None:
    _, path = convolutional
    (image,) = onnx.load(path).graph.input
    dims = image.type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, "height", "width"]
    # layer1 sees a quarter of the picture, rounded up, which must have 8 pixels a side
    assert {metadata(path)[f"lse.{axis}"] for axis in ("height", "width")} == {"[29, null]"}


@pytest.mark.parametrize("target", ["onnxruntime", "web", "tensorrt10", "tensorrt11"])
def test_gate(convolutional: tuple[AdaptedModel, Path], target: str) -> None:
    assert lse_export.check(convolutional[1], target).problems == []


def test_verify_refuses_sizes_that_the_file_does_not_hold_for(
    convolutional: tuple[AdaptedModel, Path],
) -> None:
    model, path = convolutional
    with pytest.raises(LSEError, match=r"the file takes a height from 29 on, not 28"):
        lse_export.verify(path, model, pictures(2, 28, 64))
    assert lse_export.verify(path, model, pictures(2, 29, 64), edges=False).ok


def test_transformer_that_takes_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=64,
        patch_size=8,
        depth=1,
        embed_dim=48,
        num_classes=10,
        dynamic_img_size=True,
    )
    model = moving(base, ["blocks.0"])
    path = tmp_path / "m.onnx"
    lse_export.export_onnx(model, pictures(2, 64, 80), path, dynamic_size=True)
    compare(path, model, SIZES)
    assert lse_export.check(path, "onnxruntime").problems == lse_export.check(path, "web").problems == []
    # timm resizes position embeddings as TensorRT cannot, and the gate says so
    assert "Resize" in str(lse_export.check(path, "tensorrt10").problems)


class Fixed(nn.Module):
    def __init__(self, read: Callable[[Tensor], Tensor], stride: int = 1) -> None:
        super().__init__()
        self.read, self.convolution = read, nn.Conv2d(3, 4, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.convolution(x))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Fixed(nn.Linear(80, 5)), r"the model fixes its width; export it at one size, without dynamic_size"),
        # behind a stride the tracer takes four sizes for one, and leaves the axis its name
        (Fixed(nn.Linear(20, 5), 4), r"cannot run at 64 x 160 pixels: .*; export it at one size"),
        (
            Fixed(lambda y: y.mean((2, 3)) * torch.linspace(0, 1, y.shape[3]).square().sum(), 4),
            r"the model fixes its width: at 64 x 160 pixels its graph is off by .*; export it at one size",
        ),
    ],
)
def test_models_that_fix_their_size(model: nn.Module, said: str, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    with pytest.raises(lse_export.ExportError, match=said) as caught:
        lse_export.export_onnx(model, pictures(2, 64, 80), out, dynamic_size=True, allow_plain=True)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_example_too_small_for_the_site(convolutional: tuple[AdaptedModel, Path], tmp_path: Path) -> None:
    with pytest.raises(lse_export.ExportError, match=r"at least 8 pixels a side.* from a larger example"):
        lse_export.export_onnx(convolutional[0], pictures(2, 28, 64), tmp_path / "m.onnx", dynamic_size=True)
    assert not list(tmp_path.iterdir())


def test_pictures_that_are_resized_have_one_size(tmp_path: Path) -> None:
    with pytest.raises(LSEError, match="leave dynamic_size out"):
        lse_export.export_onnx(
            Fixed(lambda y: y.mean((2, 3))),
            pictures(2, 64, 80),
            tmp_path / "m.onnx",
            dynamic_size=True,
            allow_plain=True,
            preprocess=(64, 80),
        )
