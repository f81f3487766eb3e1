"""Engines built and run for real, wherever TensorRT and a GPU are; elsewhere skipped, with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from engine_models import moving_vit, pictures
from torch import Tensor

import lse_export
from lse_core.errors import ShapeError
from lse_export.runtime import TensorrtOptions, open_session, ran_on, run
from lse_export.tensorrt.build import BuildOptions
from lse_export.tensorrt.sidecar import sidecar_of

pytest.importorskip(
    "tensorrt", reason="no TensorRT here: pip install 'lse-export[tensorrt]'", exc_type=ImportError
)
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here; engines are built on one")

QUICK = BuildOptions(optimization_level=0, refit=True)
RANGE = {"batch": (1, 2, 8)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx and model.plan of `moving_vit()`, kernel timings beside."""
    made = tmp_path_factory.mktemp("engine")
    lse_export.export_onnx(moving_vit(), pictures(2), made / "model.onnx")
    lse_export.build_engine(
        made / "model.onnx", made / "model.plan", axes=RANGE, options=QUICK, timing_cache=made / "cache"
    )
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> lse_export.Engine:
    return lse_export.Engine(folder / "model.plan", model=folder / "model.onnx")


def assert_like_the_model(found: Tensor, images: Tensor, seed: int = 0) -> None:
    with torch.no_grad():
        wanted = moving_vit(seed)(images)
    torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=1e-3 * float(wanted.max() - wanted.min()))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_engine_computes_what_the_model_computes(engine: lse_export.Engine, batch: int) -> None:
    images = pictures(batch)
    outputs = engine(images.cuda())
    assert list(outputs) == ["logits"]
    assert outputs["logits"].is_cuda
    assert_like_the_model(outputs["logits"], images)


def test_any_stream_and_any_layout_will_do(engine: lse_export.Engine) -> None:
    images = pictures(5)
    inputs = images.cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = engine(inputs[1:].to(memory_format=torch.channels_last))["logits"]
    stream.synchronize()
    assert_like_the_model(found, images[1:])
    with pytest.raises(ShapeError, match="the profile"):
        engine(pictures(9).cuda())


def test_cuda_graphs_give_the_same(folder: Path, engine: lse_export.Engine) -> None:
    captured = lse_export.Engine(folder / "model.plan", cuda_graphs=True)
    first, second = pictures(2).cuda(), pictures(2).flip(0, 3).contiguous().cuda()
    kept = captured(first)["logits"]
    for images in (second, first, pictures(1).cuda(), second):
        torch.testing.assert_close(captured(images)["logits"], engine(images)["logits"], rtol=0, atol=1e-5)
    torch.testing.assert_close(kept, engine(first)["logits"], rtol=0, atol=1e-5)  # not overwritten since


def test_weights_can_be_replaced(folder: Path, tmp_path: Path) -> None:
    lse_export.export_onnx(moving_vit(seed=1), pictures(2), tmp_path / "other.onnx")
    engine = lse_export.Engine(folder / "model.plan")
    engine.refit(tmp_path / "other.onnx")
    assert_like_the_model(engine(pictures(3).cuda())["logits"], pictures(3), seed=1)


def test_what_lies_beside_the_engine(folder: Path, engine: lse_export.Engine) -> None:
    layers = json.loads((folder / "model.plan.layers.json").read_text())
    assert layers["Layers"]
    assert (folder / "cache").stat().st_size > 0
    assert engine.facts.gpu == torch.cuda.get_device_name()
    assert engine.facts.precision == "float32"


def test_engines_of_other_machines_are_refused(folder: Path, tmp_path: Path) -> None:
    plan = tmp_path / "e.plan"
    plan.write_bytes((folder / "model.plan").read_bytes())
    facts = lse_export.tensorrt.read_facts(folder / "model.plan")
    for changed, words in (
        (facts.model_copy(update={"tensorrt": "9.0.0"}), "another major"),
        (facts.model_copy(update={"compute_capability": (3, 5)}), "compute capability 3.5"),
    ):
        sidecar_of(plan).write_text(json.dumps(changed.plain()))
        with pytest.raises(lse_export.ExportError, match=words):
            lse_export.Engine(plan)


def test_engines_for_other_releases_and_gpus(folder: Path, tmp_path: Path) -> None:
    options = BuildOptions(optimization_level=0, version_compatible=True, hardware_compatible=True)
    plan = tmp_path / "e.plan"
    lse_export.build_engine(folder / "model.onnx", plan, axes=RANGE, options=options)
    assert_like_the_model(lse_export.Engine(plan)(pictures(2).cuda())["logits"], pictures(2))


def test_onnx_runtimes_own_provider(folder: Path, tmp_path: Path) -> None:
    shapes = ([1, 3, 64, 64], [2, 3, 64, 64], [8, 3, 64, 64])
    options = TensorrtOptions(cache=tmp_path, profile={"image": shapes})
    try:
        session = open_session(folder / "model.onnx", "tensorrt", tensorrt=options)
    except lse_export.ExportError as error:
        pytest.skip(f"ONNX Runtime's TensorRT provider does not start: {error}")
    assert_like_the_model(run(session, pictures(3))["logits"], pictures(3))
    assert list(tmp_path.glob("*.engine"))
    assert "TensorrtExecutionProvider" in ran_on(folder / "model.onnx", pictures(1), "tensorrt")
