"""Engines of TensorRT for RTX run for real, wherever an RTX GPU is; elsewhere skipped, with the reason.

Nobody has run these yet.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from engine_models import moving_vit, pictures
from torch import Tensor

import lse_export
from lse_core.errors import ShapeError

pytest.importorskip(
    "tensorrt_rtx", reason="no TensorRT for RTX here: pip install 'lse-export[rtx]'", exc_type=ImportError
)

from lse_export.tensorrt.rtx import capabilities
from lse_export.tensorrt.sidecar import sidecar_of

NO_GPU = not torch.cuda.is_available()
CAPABILITY = "" if NO_GPU else "{}.{}".format(*torch.cuda.get_device_capability())
ours = pytest.mark.skipif(
    NO_GPU or CAPABILITY not in capabilities([]), reason="no GPU here that TensorRT for RTX builds for"
)
RANGE = {"batch": (1, 2, 8)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float32.plan and float16.plan of `moving_vit()`, their models beside them."""
    made = tmp_path_factory.mktemp("engine")
    for precision in ("float32", "float16"):
        path = made / f"{precision}.onnx"
        lse_export.export_onnx(moving_vit(), pictures(2), path, precision=precision)
        lse_export.build_engine(path, path.with_suffix(".plan"), axes=RANGE, flavour="rtx")
    return made


def assert_like_the_model(found: Tensor, images: Tensor, tolerance: float) -> None:
    with torch.no_grad():
        expected = moving_vit()(images)
    assert float((found.cpu() - expected).abs().max() / (expected.max() - expected.min())) <= tolerance


@ours
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("float16", 1e-2)])
@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_engines_give_what_the_model_gives(
    folder: Path, precision: str, tolerance: float, batch: int
) -> None:
    engine = lse_export.Engine(folder / f"{precision}.plan", model=folder / f"{precision}.onnx")
    found = engine(pictures(batch).cuda())["logits"]
    torch.cuda.synchronize()
    assert_like_the_model(found, pictures(batch), tolerance)
    with pytest.raises(ShapeError, match="the profile"):
        engine(pictures(9).cuda())


@ours
def test_kernels_are_kept_for_the_next_process(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "kernels.cache"
    first = lse_export.Engine(folder / "float32.plan", runtime_cache=cache)
    expected = first(pictures(2).cuda())["logits"]
    first.save_runtime_cache(cache)
    assert cache.stat().st_size > 0
    second = lse_export.Engine(folder / "float32.plan", runtime_cache=cache)
    torch.testing.assert_close(second(pictures(2).cuda())["logits"], expected, rtol=0, atol=1e-5)
    cache.write_bytes(b"no cache")  # one that does not fit is left out
    third = lse_export.Engine(folder / "float32.plan", runtime_cache=cache)
    torch.testing.assert_close(third(pictures(2).cuda())["logits"], expected, rtol=0, atol=1e-5)


@ours
def test_its_own_cuda_graphs_give_the_same(folder: Path) -> None:
    plain = lse_export.Engine(folder / "float32.plan")
    captured = lse_export.Engine(folder / "float32.plan", cuda_graphs=True)
    first, second = pictures(2).cuda(), pictures(2).flip(0, 3).contiguous().cuda()
    kept = captured(first)["logits"]
    for images in (second, first, pictures(1).cuda(), second):
        torch.testing.assert_close(captured(images)["logits"], plain(images)["logits"], rtol=0, atol=1e-5)
    torch.testing.assert_close(kept, plain(first)["logits"], rtol=0, atol=1e-5)  # not overwritten since


@ours
def test_an_engine_for_another_gpu_is_refused(folder: Path, tmp_path: Path) -> None:
    others = [capability for capability in capabilities([]) if capability != CAPABILITY]
    path = tmp_path / "other.plan"
    lse_export.build_engine(
        folder / "float32.onnx", path, axes=RANGE, flavour="rtx", compute_capabilities=others[:1]
    )
    with pytest.raises(lse_export.ExportError, match="was built for compute capabilities"):
        lse_export.Engine(path)
    # a sidecar that says otherwise does not help: TensorRT looks at the engine itself
    facts = lse_export.tensorrt.read_facts(path).model_copy(update={"compute_capabilities": (CAPABILITY,)})
    sidecar_of(path).write_text(json.dumps(facts.plain()))
    with pytest.raises(lse_export.ExportError, match=r"cannot run .* here: .*unsupported cc"):
        lse_export.Engine(path)


@pytest.mark.skipif(NO_GPU or CAPABILITY in capabilities([]), reason="no GPU here that it does not know")
def test_gpus_outside_its_list_are_refused(folder: Path) -> None:
    with pytest.raises(lse_export.ExportError, match="was built for compute capabilities"):
        lse_export.Engine(folder / "float32.plan")
