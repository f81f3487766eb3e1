"""mmengine's Runner on the package's configs and the made objects."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmseg.registry import MODELS

import lse_seg
from lse_core.errors import LSEError, UnknownNameError
from lse_data.objects import ObjectsConfig, write_objects
from lse_seg.running import config_names, load_config, make_runner, set_data


@pytest.fixture(autouse=True)
def scope() -> Any:
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seg") / "objects"
    wanted = ObjectsConfig(
        train=8, val=2, test=1, size=64, families=("shapes",), test_factors=(0.7, 1.0)
    )  # fmt: skip
    write_objects(wanted, folder)
    return folder


def shorten(config: Config, steps: int) -> None:
    config.train_dataloader.batch_size = 4
    config.train_cfg.max_iters = config.train_cfg.val_interval = steps
    config.default_hooks.checkpoint.interval = steps
    config.param_scheduler[0].end = config.param_scheduler[1].begin = 1
    config.log_level = "ERROR"


def test_dec_trains_validates_checkpoints_resumes_and_tests(objects: Path, tmp_path: Path) -> None:
    config = load_config("segformer_dec")
    set_data(config, objects)
    shorten(config, 2)
    config.experiment_name = "first"
    runner = make_runner(config, tmp_path)
    assert isinstance(runner.model, lse_seg.CanonicalizedSegmentor)
    before = {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}
    runner.train()
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_2.pth")
    trained = runner.model.state_dict()
    # every canonicalizer and the backbone have learnt
    for part in ("frame.model.canonicalizer.", "layers.1.1.0.canonicalizer.", "layers.0.0.projection"):
        assert any(part in name and not torch.equal(t, before[name]) for name, t in trained.items()), part
    logged = runner.message_hub.log_scalars
    assert {"train/canonicalizer.image.loss", "train/canonicalizer.backbone.layers.1.1.0.loss"} <= set(logged)
    assert "val/scale/mIoU" in logged

    config = load_config("segformer_dec")
    set_data(config, objects)
    shorten(config, 3)
    config.experiment_name = "second"
    runner = make_runner(config, tmp_path, resume=True)
    runner.load_or_resume()
    assert runner.iter == 2
    torch.testing.assert_close(runner.model.state_dict(), trained, rtol=0, atol=0)
    runner.train()
    assert runner.iter == 3
    steps = {int(state["step"]) for state in runner.optim_wrapper.optimizer.state.values()}
    assert steps == {3}
    found = runner.test()
    assert {"scale/mIoU_0.7", "scale/mIoU_1", "scale/mIoU_std", "consistency/EquE"} <= set(found)
    assert 0.0 <= found["scale/mIoU"] <= 100.0
    assert found["consistency/EquE"] > 0.0


@pytest.mark.parametrize("name", config_names())
def test_every_config_builds_its_model(name: str) -> None:
    init_default_scope("mmseg")
    config = load_config(name)
    model: Any = MODELS.build(config.model)
    model.eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, 128, 128))
    assert logits.shape[1] == 19
    method = name.rpartition("_")[2]
    augmented = any(step.type is lse_seg.RandomMonotoneScaling for step in config.train_pipeline)
    assert augmented == (method != "base")
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline
    expected = {"base": set(), "aug": set(), "augl": set(), "canon": {"Canon"}, "dec": {"DEC"}}[method]
    sites = getattr(model, "sites", {})
    assert {type(site.canonicalizer).__name__ for site in sites.values()} == expected
    assert len(sites) == {"canon": 1, "dec": 2}.get(method, 0)


def test_configs_are_for_three_models_and_five_methods() -> None:
    pairs = {tuple(name.rsplit("_", 1)) for name in config_names()}
    models, methods = ("segformer", "swin_uper", "vit_dpt"), ("base", "aug", "augl", "canon", "dec")
    assert pairs == {(model, method) for model in models for method in methods}


def test_a_written_config_says_the_same(tmp_path: Path) -> None:
    """mmengine writes the config beside the checkpoints."""
    config = load_config("segformer_dec")
    config.dump(tmp_path / "config.py")
    again = load_config(tmp_path / "config.py")
    assert again.model.backbone.sites == "layers.1.1.0"
    init_default_scope("mmseg")
    assert isinstance(MODELS.build(again.model), lse_seg.CanonicalizedSegmentor)


def test_custom_imports_register_everything(tmp_path: Path) -> None:
    """A config in the older style, with names instead of classes."""
    path = tmp_path / "old.py"
    path.write_text(
        'custom_imports = dict(imports=["lse_seg"])\n'
        'backbone = dict(type="CanonicalizedBackbone", sites="layer2", backbone=dict(\n'
        '    type="ResNetV1c", depth=18, base_channels=8, stem_channels=8))\n'
    )
    init_default_scope("mmseg")
    model: Any = MODELS.build(Config.fromfile(str(path)).backbone)
    assert list(model.adapted.sites) == ["layer2"]


def test_unknown_and_broken_configs_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown config 'segformer_dek'. Did you mean 'segformer_dec'"
    ):
        load_config("segformer_dek")
    with pytest.raises(LSEError, match=r"missing\.py: no such config"):
        load_config(tmp_path / "missing.py")
    broken = tmp_path / "broken.py"
    broken.write_text("model = dict(type=\n")
    with pytest.raises(LSEError, match=r"broken\.py cannot be read as a config"):
        load_config(broken)


def test_a_checkpoint_runs_no_code_of_its_own(tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> Any:
            return getattr, (tmp_path, "touch")

    torch.save({"message_hub": Exploit()}, tmp_path / "bad.pth")
    with pytest.raises(Exception, match=r"not a file of mmengine's|Unsupported global"):
        torch.load(tmp_path / "bad.pth")
