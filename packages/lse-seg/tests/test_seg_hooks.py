"""The hooks in a real Runner: EquE in a test loop, and the pictures of a canonicalizing segmentor."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image

from lse_core import SeparableWarp, unscale
from lse_core.errors import LSEError
from lse_data.objects import ObjectsConfig, write_objects
from lse_seg.hooks import WarpVisualizationHook
from lse_seg.metrics import EquivarianceError
from lse_seg.panels import canonical_picture, draw_warp, row

META = ("img_path", "ori_shape", "img_shape", "pad_shape", "local_scale", "base_image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "objects"
    write_objects(ObjectsConfig(train=0, test=2, size=64, families=("shapes", "cutouts")), out)
    return out


@pytest.fixture(autouse=True)
def scope() -> Any:
    yield
    DefaultScope._instance_dict.clear()


def config(folder: Path, out: Path, **changes: Any) -> Any:
    head = {
        "type": "FCNHead", "in_channels": 32, "in_index": 0, "channels": 8, "num_convs": 1, "num_classes": 9,
        "norm_cfg": {"type": "BN"}, "align_corners": False,
    }  # fmt: skip
    model = {
        "type": "CanonicalizedSegmentor",
        "canonicalizer": {"canonicalizer": "variation"},
        "data_preprocessor": {
            "type": "SegDataPreProcessor", "mean": [127.0] * 3, "std": [64.0] * 3, "bgr_to_rgb": True
        },
        "backbone": {
            "type": "ResNetV1c", "depth": 18, "base_channels": 8, "stem_channels": 8, "out_indices": (2,)
        },
        "decode_head": head,
        "test_cfg": {"mode": "whole"},
    }  # fmt: skip
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs", "meta_keys": META},
    ]
    dataset = {
        "type": "ScaledObjectsDataset", "data_root": str(folder), "split": "test", "pipeline": pipeline,
        "test_mode": True,
    }  # fmt: skip
    loader = {
        "batch_size": 4, "num_workers": 0, "dataset": dataset,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
    }  # fmt: skip
    settings = {
        "default_scope": "mmseg",
        "work_dir": str(out),
        "model": model,
        "test_dataloader": loader,
        "test_cfg": {},
        "test_evaluator": [{"type": "IoUMetric"}, {"type": "IoUPerScale"}, {"type": "EquivarianceError"}],
        "custom_hooks": [
            {"type": "EquivarianceHook"},
            {"type": "WarpVisualizationHook", "interval": 2, "images": 1},
        ],
        "visualizer": {"type": "SegLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
        "randomness": {"seed": 0},
        "log_level": "WARNING",
        "experiment_name": f"{out.name}-{len(changes)}",
    }
    made = ConfigDict(settings)
    made.update(changes)
    return made


def test_a_runner_measures_and_draws(folder: Path, tmp_path: Path) -> None:
    runner = Runner.from_cfg(config(folder, tmp_path / "work"))
    found = runner.test()
    assert found["consistency/EquE"] > 0
    assert np.isfinite([found[f"scale/mIoU_{f}"] for f in ("0.5", "0.7", "1", "1.4", "2")]).all()
    assert found["scale/mIoU"] == pytest.approx(found["mIoU"], abs=0.006)
    # ten images in batches of four: the first and the third are drawn, one image each
    drawn = sorted((tmp_path / "work").rglob("vis_image/*.png"))
    images = folder / "img_dir" / "test"
    (first,), (second,) = images.glob("000000_*_0.5.png"), images.glob("000001_*_1.4.png")
    assert [p.name.rsplit("_", 1)[0] for p in drawn] == [f"test_{first.stem}", f"test_{second.stem}"]
    picture = np.asarray(Image.open(drawn[0]))
    assert picture.shape == (192 + 20 + 6, 5 * (192 + 6) + 6, 3)
    source = np.asarray(Image.open(first))
    panel = picture[20 : 20 + 192, 6 : 6 + 192]
    assert np.array_equal(panel[1::3, 1::3], source)
    panels = [picture[20 : 20 + 192, 6 + i * 198 : 6 + i * 198 + 192] for i in range(5)]
    for one, other in pairwise(panels):
        assert not np.array_equal(one, other)


def test_without_canonicalizer_there_are_three_panels(folder: Path, tmp_path: Path) -> None:
    settings = config(folder, tmp_path / "work", test_evaluator=[{"type": "IoUMetric"}])
    settings.model.canonicalizer = None
    Runner.from_cfg(settings).test()
    first = sorted((tmp_path / "work").rglob("vis_image/*.png"))[0]
    assert Image.open(first).size == (3 * 198 + 6, 218)


def test_metric_without_the_hook_says_so(folder: Path, tmp_path: Path) -> None:
    settings = config(
        folder, tmp_path / "work", test_evaluator=[{"type": "EquivarianceError"}], custom_hooks=[]
    )
    with pytest.raises(LSEError, match=r"add dict\(type='EquivarianceHook'\) to custom_hooks"):
        Runner.from_cfg(settings).test()


def test_hook_asks_as_the_loop_does() -> None:
    from types import SimpleNamespace

    from mmengine.evaluator import Evaluator

    from lse_seg.hooks import EquivarianceHook

    metric = EquivarianceError()
    loop = SimpleNamespace(evaluator=Evaluator([metric]), fp16=False)
    model = SimpleNamespace(val_step=lambda b: ("val", b), test_step=lambda b: ("test", b))
    runner = SimpleNamespace(val_loop=loop, test_loop=loop, model=model)
    EquivarianceHook().before_val_epoch(runner)
    assert metric.ask is not None
    assert metric.ask({"a": 1}) == ("val", {"a": 1})
    EquivarianceHook().before_test_epoch(runner)
    assert metric.ask({"a": 1}) == ("test", {"a": 1})


def test_lines_lie_where_the_canonical_grid_comes_from() -> None:
    """What lies under a line of the picture lies on an even line of the canonical picture."""
    warp = SeparableWarp.random(1, 4, 3.0, generator=torch.Generator().manual_seed(0))
    n = 193
    drawn = draw_warp(np.zeros((n, n, 3), dtype=np.uint8), warp, lines=5)
    yellow = (drawn == (255, 255, 0)).all(-1)
    columns = np.flatnonzero(yellow[n // 3])
    expected = warp.x(torch.linspace(0, 1, 5))[0].numpy() * (n - 1)
    assert [np.abs(columns - e).min() <= 1 for e in expected] == [True] * 5
    canonical = canonical_picture(np.where(drawn == (255, 255, 0), 255, 0).astype(np.uint8), warp)
    marked = np.flatnonzero(canonical[n // 3 + 20, :, 0] > 100)
    for k in range(5):
        assert np.abs(marked - k * (n - 1) / 4).min() <= 2


def test_canonical_picture_is_unscaled() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    warp = SeparableWarp.random(2, 4, 3.0, generator=torch.Generator().manual_seed(1))
    expected = unscale(torch.from_numpy(picture).permute(2, 0, 1)[None].double(), warp[0].to(torch.float64))
    found = canonical_picture(picture, warp)
    assert np.abs(found - expected[0].permute(1, 2, 0).numpy()).max() <= 0.51


def test_large_pictures_keep_their_size() -> None:
    assert row([("a", np.zeros((200, 300, 3), np.uint8))] * 2).shape == (226, 618, 3)


def test_settings_out_of_range() -> None:
    with pytest.raises(LSEError, match=r"must be at least 1, lines at least 2; got 0, 1, 9"):
        WarpVisualizationHook(interval=0)
