"""A segmentor with canonicalizers, from mmengine's work folder to ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import DefaultScope, init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import nn

import lse_export
from lse_core.card import card_of
from lse_core.errors import LSEError
from lse_export.loading import images_for, load_model
from lse_seg.exporting import DenseSegmentor, load_segmentor
from lse_seg.running import load_config


@pytest.fixture(autouse=True)
def scope() -> Any:
    init_default_scope("mmseg")
    yield
    DefaultScope._instance_dict.clear()


def trained(name: str) -> tuple[Any, Any]:
    """A config, smaller, and its model with canonicalizers that warp."""
    torch.manual_seed(0)
    config = load_config(name)
    if name.startswith("segformer"):
        config.model.backbone.backbone.update(
            num_stages=2, num_layers=[1, 1], num_heads=[1, 2], patch_sizes=[7, 3], strides=[4, 2],
            sr_ratios=[4, 2], out_indices=(0, 1),
        )  # fmt: skip
        config.model.decode_head.update(in_channels=[24, 48], in_index=[0, 1])
        config.model.canonicalizer.steps = 3
    model: Any = MODELS.build(config.model)
    model.init_weights()
    for site in model.sites.values():
        for parameter in site.canonicalizer.parameters():
            with torch.no_grad():
                parameter += 0.2 * torch.randn_like(parameter)
    # no class everywhere
    nn.init.normal_(model.decode_head.conv_seg.weight, std=1.0)
    model.eval()
    return config, model


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder as mmengine's Runner leaves it."""
    folder = tmp_path_factory.mktemp("work")
    init_default_scope("mmseg")
    config, model = trained("segformer_dec")
    config.dump(folder / "segformer_dec.py")
    torch.save({"meta": {}, "state_dict": model.state_dict()}, folder / "iter_3.pth")
    (folder / "last_checkpoint").write_text("/elsewhere/iter_3.pth")
    return folder


def pictures(count: int = 3, size: int = 64) -> torch.Tensor:
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, (size, size), mode="bicubic")


def test_dec_segmentor_is_the_same_in_onnx_runtime(work: Path, tmp_path: Path) -> None:
    model = load_segmentor(work, trust=True)
    assert set(model.canonicalizers) == {"image", "backbone.layers.1.1.0"}
    x = pictures()
    out = lse_export.export_onnx(model, x, tmp_path / "model.onnx")
    assert not {"GridSample", "Loop", "If", "Scan"} & set(out.ops)
    session = onnxruntime.InferenceSession(str(out.path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(x).numpy()
        plain = model.segmentor.decode_head(model.segmentor.extract_feat(x))
    (found,) = session.run(None, {"image": x.numpy()})
    assert found.shape == (3, 19, 64, 64)
    assert len(np.unique(expected.argmax(1))) > 1
    assert float(np.mean(found.argmax(1) == expected.argmax(1))) >= 0.999
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.ptp(expected))
    # the canonicalizers do something
    bare = nn.functional.interpolate(plain, (64, 64), mode="bilinear").numpy()
    assert float(np.abs(bare - expected).max()) > 0.05 * np.ptp(expected)
    report = lse_export.verify(out.path, model, x, batch_sizes=(2,), edges=False)
    assert report.ok, report.summary()


def test_work_folder_or_checkpoint_may_be_named(work: Path) -> None:
    x = pictures(1)
    with torch.no_grad():
        by_folder, by_file = (load_segmentor(p, trust=True)(x) for p in (work, work / "iter_3.pth"))
    assert torch.equal(by_folder, by_file)
    told = card_of(load_segmentor(work, trust=True)).preprocess
    assert told is not None
    assert told.mean == pytest.approx([0.5] * 3)
    assert told.std == pytest.approx([64 / 255] * 3)
    assert (told.size, told.colours) == (None, "rgb")


def test_pictures_are_prepared_as_mmsegmentation_prepares_them(work: Path, tmp_path: Path) -> None:
    model = load_segmentor(work, trust=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    loaded = LoadImageFromFile()({"img_path": str(tmp_path / "a.png")})["img"]
    data = {"inputs": [torch.from_numpy(loaded).permute(2, 0, 1)], "data_samples": [SegDataSample()]}
    expected = model.segmentor.data_preprocessor(data, False)["inputs"]
    torch.testing.assert_close(images_for(model, None, [tmp_path / "a.png"]), expected)


def test_a_config_is_code_and_wants_trust(work: Path) -> None:
    for path in (work, work / "iter_3.pth"):
        with pytest.raises(LSEError, match=r"segformer_dec\.py is a config .* executed: if you trust"):
            load_model(path)


def test_commands_take_a_work_folder(work: Path, tmp_path: Path) -> None:
    model = load_model(work, trust=True)
    assert isinstance(model, DenseSegmentor)
    assert isinstance(load_model(work / "iter_3.pth", trust=True), DenseSegmentor)
    assert images_for(model, (64, 96), ()).shape == (2, 3, 64, 96)
    with pytest.raises(LSEError, match="no such file or folder"):
        load_model(tmp_path / "nothing")


def test_a_plain_segmentor_has_no_canonicalizers() -> None:
    model = DenseSegmentor(MODELS.build(load_config("segformer_aug").model))
    assert model.canonicalizers == {}
    with pytest.raises(LSEError, match="has no canonicalizers"):
        lse_export.export_onnx(model.eval(), pictures(1), "unused.onnx")


def test_what_is_missing_is_named(work: Path, tmp_path: Path) -> None:
    with pytest.raises(LSEError, match="contains no checkpoint of mmengine"):
        load_segmentor(tmp_path)
    (tmp_path / "last_checkpoint").write_text("iter_9.pth")
    with pytest.raises(LSEError, match=r"iter_9\.pth: no such checkpoint"):
        load_segmentor(tmp_path)
    (tmp_path / "iter_9.pth").write_bytes((work / "iter_3.pth").read_bytes())
    with pytest.raises(LSEError, match="there must be one config; found: none"):
        load_segmentor(tmp_path)
    load_config("segformer_aug").dump(tmp_path / "config.py")
    with pytest.raises(LSEError, match="does not fit the config beside it"):
        load_segmentor(tmp_path, trust=True)
