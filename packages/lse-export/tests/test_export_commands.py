"""The commands, as somebody types them who follows the hints: broken pictures, sizes, names, `--force`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import lse_export
from lse_core.cli import main
from lse_core.errors import LSEWarning, OutputError
from lse_core.pictures import PictureError
from lse_export.commands import export
from lse_export.commands.running import predict as predict_command
from lse_export.loading import images_for
from lse_export.metadata import facts_of


class Small(nn.Module):
    """Two scores of a convolution, for pictures of any size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)
        self.pretrained_cfg = {
            "input_size": (3, 8, 8),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "crop_pct": 1.0,
        }

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.conv(image).relu().mean((2, 3)))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Small:
    found = Small().eval()
    monkeypatch.setattr("lse_export.loading.load_model", lambda path, trust=False: found)
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures of noise, and one cut short, which is the first by name."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(generator.integers(0, 256, (9, 11, 3), np.uint8)).save(folder / f"{k}.png")
    (folder / "-.png").write_bytes((folder / "0.png").read_bytes()[:100])
    return folder


def lse(*args: object, status: int = 0) -> Any:
    done = CliRunner().invoke(main, [str(arg) for arg in args])
    assert done.exit_code == status, done.output
    return done


LEFT_OUT = r"left out 1 of 5 pictures; .*-.png cannot be read"


def test_broken_pictures_are_left_out(model: Small, photos: Path) -> None:
    with pytest.warns(LSEWarning, match=LEFT_OUT):
        assert images_for(model, images=[photos]).shape == (4, 3, 8, 8)
    with pytest.raises(PictureError, match=r"none of 1 pictures can be read; .*-.png cannot"):
        images_for(model, images=[photos / "-.png"])


@pytest.mark.parametrize(
    ("options", "then"),
    [
        ([], []),
        (["--size", 12, 10], []),
        (["--fixed-batch", 3], []),
        (["--dynamic-size", "--size", 12, 10], ["--size", "12", "10"]),
        (["--preprocess", 9, 11], []),
        (["--precision", "int8", "--calibration", "PHOTOS"], ["--images", "PHOTOS"]),
        (["--images", "PHOTOS", "--trust"], ["--trust"]),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_the_hint_works(
    options: list[object], then: list[str], model: Small, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    done = lse("export", "onnx", "model", "--out", path, *(photos if o == "PHOTOS" else o for o in options))
    assert ("left out 1 of 5" in done.stderr) == ("PHOTOS" in options)
    (hint,) = (line for line in done.stdout.splitlines() if line.startswith("next: "))
    words = shlex.split(hint)
    more = [str(photos) if w == "PHOTOS" else w for w in then]
    assert words == ["next:", "lse", "export", "verify", str(path), "model", *more]
    done = lse(*words[2:])
    assert "does not compute" not in done.stderr


def test_shapes_that_files_tell(model: Small, tmp_path: Path) -> None:
    images = torch.rand(3, 3, 8, 6)
    for kwargs, found in (
        ({}, (None, (8, 6))),
        ({"dynamic_batch": False}, (3, (8, 6))),
        ({"dynamic_size": True}, (None, (8, 6))),
        ({"preprocess": (9, 9)}, (None, None)),
    ):
        lse_export.export_onnx(model, images, tmp_path / "m.onnx", allow_plain=True, overwrite=True, **kwargs)
        assert facts_of(tmp_path / "m.onnx").image_shape() == found
    assert facts_of(tmp_path / "absent.onnx").image_shape() == (None, None)


def test_edge_inputs_do_not_decide_on_eight_bits(model: Small, tmp_path: Path) -> None:
    images = torch.rand(8, 3, 8, 8) * 0.1
    with torch.no_grad():
        model.head.bias.zero_()
        model.head.weight.copy_(torch.tensor([[1.0] * 4, [0.0] * 4]))
    path = tmp_path / "m.onnx"
    lse_export.export_onnx(model, images, path, allow_plain=True, precision="int8", calibration=images)
    report = lse_export.verify(path, model, images)  # raises nothing
    assert report.ok
    assert report.quantized
    edges = [row for row in report.rows if row.inputs != "real"]
    assert "extreme" in {row.inputs for row in edges if row.verdict == "different"}
    assert "extreme" in report.summary()
    assert "does not count" in report.summary()
    # real inputs still decide
    assert not lse_export.verify(path, model, images * 40, throw=False).ok


def test_commands_say_force(model: Small, photos: Path, tmp_path: Path) -> None:
    lse_export.export_onnx(model, torch.rand(2, 3, 8, 8), tmp_path / "m.onnx", allow_plain=True)
    out = tmp_path / "there"
    out.touch()
    for args in (
        ["predict", tmp_path / "m.onnx", photos / "0.png", "--out", out],
        ["export", "onnx", "model", "--out", out],
        ["export", "tensorrt", tmp_path / "m.onnx", "--out", out],
    ):
        done = lse(*args, status=1)
        assert (
            "there exists already; choose another name or allow overwriting (a command's --force)"
            in done.stderr
        )
    with pytest.raises(OutputError, match="or allow overwriting"):
        lse_export.export_onnx(model, torch.rand(2, 3, 8, 8), out, allow_plain=True)
    for command in (predict_command, export.commands["onnx"], export.commands["tensorrt"]):
        assert "--force" in CliRunner().invoke(command, ["--help"]).output


def test_a_file_of_any_size_takes_the_size_that_it_tells(model: Small, photos: Path, tmp_path: Path) -> None:
    path, fixed = tmp_path / "any.onnx", tmp_path / "fixed.onnx"
    images = torch.rand(2, 3, 8, 6)
    lse_export.export_onnx(model, images, path, allow_plain=True, dynamic_size=True)
    lse_export.export_onnx(model, images, fixed, allow_plain=True)
    found, expected = (
        json.loads(lse("predict", file, photos / "0.png", "--json").stdout) for file in (path, fixed)
    )
    assert found[0]["probabilities"] == pytest.approx(expected[0]["probabilities"], abs=1e-6)
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.save(proto, path)
    done = lse("predict", path, photos / "0.png", "--mean", 0.5, "--std", 0.5, status=1)
    assert "does not say of what size images must be" in done.stderr


def test_names_of_classes_stay_on_their_line(model: Small, photos: Path, tmp_path: Path) -> None:
    lse_export.export_onnx(
        model, torch.rand(2, 3, 8, 8), tmp_path / "m.onnx", allow_plain=True, class_names=["a\n  b", "c\td"]
    )
    done = lse("predict", tmp_path / "m.onnx", photos / "0.png")
    assert len(done.stdout.splitlines()) == 1
    assert "a b " in done.stdout
    assert "c d " in done.stdout
