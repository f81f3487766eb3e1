"""Running exported files: pictures classified, models timed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import lse_export
from lse_core import registry
from lse_core.errors import LSEError, UnknownNameError
from lse_export.bench import WAYS, bench
from lse_export.commands.running import predict as predict_command
from lse_export.predict import predict
from lse_export.runtime import TensorrtOptions, ran_on


class Brightest(nn.Module):
    """Scores of two classes: how red and how blue a picture is."""

    def __init__(self) -> None:
        super().__init__()
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))[:, ::2] * 3.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    lse_export.export_onnx(
        Brightest(), torch.rand(2, 3, 4, 4), path, allow_plain=True, class_names=["red", "blue"]
    )
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = []
    for k, channel in enumerate((0, 2, 0)):
        pixels = np.zeros((9, 7, 3), np.uint8)
        pixels[..., channel] = 255
        files.append(tmp_path / f"{k}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def test_pictures_are_classified(model: Path, pictures: list[Path]) -> None:
    found = predict(model, pictures, batch=2)
    assert [p.classes for p in found] == [["red", "blue"], ["blue", "red"], ["red", "blue"]]
    # normalised to +1 and -1, times three: a gap of six
    expected = torch.tensor([3.0, -3.0]).softmax(0).tolist()
    for p in found:
        assert p.probabilities == pytest.approx(expected, abs=1e-6)
    assert [p.file for p in found] == pictures


def test_a_fixed_batch_is_filled_up(pictures: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    images = torch.rand(2, 3, 4, 4)
    lse_export.export_onnx(Brightest(), images, path, allow_plain=True, dynamic_batch=False)
    # without names, classes are numbers
    assert [p.classes[0] for p in predict(path, pictures, top=1)] == ["0", "1", "0"]
    with pytest.raises(lse_export.ExportError, match="batch size is fixed"):
        lse_export.verify(path, Brightest(), images, batch_sizes=(1,))
    assert lse_export.verify(path, Brightest(), images, batch_sizes=(2,)).ok


def test_files_that_cannot_predict(pictures: list[Path], tmp_path: Path) -> None:
    class Bare(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image * 2.0

    path = tmp_path / "bare.onnx"
    lse_export.export_onnx(Bare(), torch.rand(2, 3, 4, 4), path, allow_plain=True)
    with pytest.raises(lse_export.ExportError, match="how images are normalised"):
        predict(path, pictures)
    with pytest.raises(LSEError, match="mean has 2 numbers for 3 channels"):
        predict(path, pictures, mean=[0.5, 0.5], std=[0.5])
    with pytest.raises(lse_export.ExportError, match=r"not class scores \(batch, classes\)"):
        predict(path, pictures, mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(LSEError, match="at least 1"):
        predict(path, pictures, top=0)


def test_where_nodes_ran(model: Path) -> None:
    nodes = len(onnx.load(model).graph.node)
    ran = ran_on(model, torch.rand(2, 3, 4, 4))
    assert set(ran) == {"CPUExecutionProvider"}
    assert 1 <= ran.total() <= nodes  # fewer where ONNX Runtime fused some
    assert not list(model.parent.glob("*trace*"))


def test_doctor_tells_what_files_can_run_on() -> None:
    line = registry().get("check", "runtimes")()
    assert re.fullmatch(
        rf"ONNX Runtime {re.escape(ort.__version__)} \(built for cpu[a-z, ]*\), "
        r"(no TensorRT|TensorRT [\d.]+), (a|no) GPU",
        line,
    )


def test_options_of_tensorrt() -> None:
    assert TensorrtOptions().as_provider() == {}
    shapes = ([1, 3, 4, 4], [2, 3, 4, 4], [8, 3, 4, 4])
    options = TensorrtOptions(Path("kept"), {"image": shapes, "mask": shapes}, True)
    assert options.as_provider() == {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "kept",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "kept",
        "trt_profile_min_shapes": "image:1x3x4x4,mask:1x3x4x4",
        "trt_profile_opt_shapes": "image:2x3x4x4,mask:2x3x4x4",
        "trt_profile_max_shapes": "image:8x3x4x4,mask:8x3x4x4",
        "trt_fp16_enable": "1",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here; this is about machines without")
def test_a_provider_that_does_not_start_is_no_cpu_in_disguise(
    model: Path, pictures: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    args = [str(model), str(pictures[0]), "--provider", "tensorrt", "--trt-fp16"]
    run = CliRunner().invoke(predict_command, [*args, "--trt-profile", "image=1x3x4x4:2x3x4x4:4x3x4x4"])
    assert isinstance(run.exception, lse_export.ExportError)
    assert re.search("cannot start provider 'tensorrt'|fell back to|has no provider", str(run.exception))
    assert "EP Error" not in run.output + capfd.readouterr().out
    run = CliRunner().invoke(predict_command, [*args, "--trt-profile", "image=1x3x4x4"])
    assert "no profile of an input" in str(run.exception)
    run = CliRunner().invoke(predict_command, [str(model), str(pictures[0]), "--trt-fp16"])
    assert "options of TensorRT, but the provider is 'cpu'" in str(run.exception)


def test_the_command(model: Path, pictures: list[Path]) -> None:
    run = CliRunner().invoke(predict_command, [str(model), str(pictures[0].parent), "--top", "1", "--json"])
    assert run.exit_code == 0, run.output
    assert [p["classes"] for p in json.loads(run.stdout)] == [["red"], ["blue"], ["red"]]
    run = CliRunner().invoke(predict_command, [str(model), str(pictures[1])])
    assert "blue 99.8%, red 0.2%" in run.stdout


def test_models_are_timed_beside_the_first() -> None:
    models = {"plain": Brightest(), "adapted": nn.Sequential(nn.AvgPool2d(1), Brightest())}
    rows = bench(models, torch.rand(2, 3, 4, 4), ways=("eager", "ort-cpu"), rounds=3, warmup=1)
    assert [(row.way, row.model) for row in rows] == [
        ("eager", "plain"),
        ("eager", "adapted"),
        ("ort-cpu", "plain"),
        ("ort-cpu", "adapted"),
    ]
    for row in rows:
        assert not row.error
        assert row.spread[0] <= row.milliseconds <= row.spread[1]
        assert row.throughput == pytest.approx(2e3 / row.milliseconds)
        assert (row.ratio == 1.0) if row.model == "plain" else row.ratio > 0
        assert (row.to_first_way == 1.0) if row.way == "eager" else row.to_first_way > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here; this is about machines without")
def test_ways_that_need_a_gpu_are_told() -> None:
    rows = bench(
        {"plain": Brightest()}, torch.rand(2, 3, 4, 4), ways=("ort-tensorrt", "tensorrt"), rounds=2,
        tensorrt=TensorrtOptions(fp16=True),
    )  # fmt: skip
    assert [row.way for row in rows] == ["ort-tensorrt", "tensorrt"]
    assert all("TensorRT" in row.error for row in rows), rows


def test_a_way_that_does_not_work_is_told() -> None:
    class Picky(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            raise RuntimeError("not this image\nand more lines")

    rows = bench({"plain": Picky()}, torch.rand(2, 3, 4, 4), ways=("eager",), rounds=2)
    assert "not this image" in rows[0].error
    assert "\n" not in rows[0].error
    assert rows[0].as_dict()["ratio"] is None
    assert "NaN" not in json.dumps(rows[0].as_dict())
    with pytest.raises(UnknownNameError, match="unknown way to run a model 'ort'"):
        bench({"plain": Picky()}, torch.rand(1, 3, 4, 4), ways=("ort",))
    with pytest.raises(LSEError, match="at least 2 rounds"):
        bench({"plain": Picky()}, torch.rand(1, 3, 4, 4), rounds=1)
    assert {"eager", "compiled", "ort-cpu", "ort-cuda", "ort-tensorrt", "tensorrt"} == set(WAYS)
