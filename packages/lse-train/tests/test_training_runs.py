"""Whole training runs: what they learn, without labels too, and what stops them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import lse_dec
from lse_core.errors import LSEError, NotFiniteError
from lse_core.metrics import invariance_error
from lse_core.plugins import hookimpl, registry
from lse_data import DigitsConfig, load_digits_dataset
from lse_dec.monitor import displacement
from lse_train import ConfigError, RunConfig, evaluate, fit, load_run
from lse_train.models import make_model

GREY = {"in_chans": 1, "num_classes": 1000}


def test_channels_last_changes_nothing_but_rounding(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: list[bool] = []
    step = nn.Conv2d.forward

    def seen(self: nn.Conv2d, x: Tensor) -> Tensor:
        if self.kernel_size > (1, 1) and self.in_channels > 1:
            last.append(self.weight.is_contiguous(memory_format=torch.channels_last))
        return step(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", seen)
    config = RunConfig.parse({**settings, "steps": 4, "precision": "float64", "checkpoint_every": 2})
    first = load_file(fit(config, tmp_path / "first").folder / "model.safetensors")
    assert not any(last)
    last.clear()
    other = load_file(
        fit(config.model_copy(update={"channels_last": True}), tmp_path / "last").folder / "model.safetensors"
    )
    assert last
    assert all(last)
    for name, value in first.items():
        torch.testing.assert_close(other[name], value, rtol=1e-6, atol=1e-9)


def test_eq_5_alone_trains_a_canonicalizer_and_leaves_every_backbone_bit(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    base = {k: v for k, v in settings.items() if k not in ("adapt", "augment")}
    start = fit(RunConfig.parse({**base, "steps": 2}), tmp_path / "start")
    assert not isinstance(load_run(start.folder), lse_dec.AdaptedModel)
    config = RunConfig.parse(
        {
            **base,
            "model": {**settings["model"], "initial": str(start.folder)},
            "adapt": {
                **settings["adapt"],
                "ratio": 4.0,
                "widths": [16, 32],
                "projection": 8,
                "gradient": "unrolled",
            },
            "method": "equivariance",
            "steps": 160,
            "batch_size": 16,
            "log_every": 10,
        }
    )
    done = fit(config, tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("loss/equivariance/image")
    errors = [float(row.split(",")[column]) for row in rows[1:]]
    assert errors[0] > 0.9
    # whatever is the same for all images costs 1
    assert errors[-1] < 0.7
    before = load_file(start.folder / "model.safetensors")
    model = load_run(done.folder)
    assert isinstance(model, lse_dec.AdaptedModel)
    after = lse_dec.unadapt(model).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], value) for name, value in after.items())
    # an adapted start stays adapted, and cannot be adapted again
    more = {**base, "steps": 1, "model": {**settings["model"], "initial": str(done.folder)}}
    assert "sites" in fit(RunConfig.parse(more), tmp_path / "more").metrics["far"]
    with pytest.raises(ConfigError, match="contains an adapted model; leave adapt out"):
        fit(RunConfig.parse({**more, "adapt": settings["adapt"]}), tmp_path / "again")


def test_training_begins_with_the_weights_of_a_file(settings: dict[str, Any], tmp_path: Path) -> None:
    coloured = timm.create_model("resnet10t", num_classes=11)
    save_file(coloured.state_dict(), tmp_path / "w.safetensors")
    model = {"name": "resnet10t", "kwargs": GREY, "initial": str(tmp_path / "w.safetensors")}
    begun = make_model(RunConfig.parse({**settings, "model": model, "adapt": None})).state_dict()
    for name, value in coloured.state_dict().items():
        expected = value.sum(1, keepdim=True) if name == "conv1.0.weight" else value
        assert name.startswith("fc.") or torch.allclose(begun[name], expected), name


def test_evaluation_against_the_definitions(settings: dict[str, Any], tmp_path: Path) -> None:
    done = fit(RunConfig.parse({**settings, "steps": 4, "optim": {"canonicalizer_lr": 0.03}}), tmp_path)
    options = {**settings["data"]["options"], **settings["data"]["tests"]["far"]}
    found = evaluate(done.folder, "digits", options, brackets=[(0.6, 1.0), (1.0, 1.6)], batch_size=7)
    flat = pytest.approx({k: v for k, v in done.metrics["far"].items() if k != "sites"})
    assert {k: v for k, v in found.items() if "by_scale" not in k and k != "sites"} == flat
    assert found["sites"]["image"] == pytest.approx(done.metrics["far"]["sites"]["image"])
    data = load_digits_dataset(
        DigitsConfig.from_mapping({k: v for k, v in options.items() if k != "cache_dir"}),
        options["cache_dir"],
    )
    model = lse_dec.load(done.folder)
    x = (data.images.float() / 255 - 0.1) / 0.3
    with torch.no_grad(), lse_dec.observe(model) as record:
        p = model(x).softmax(-1).unflatten(0, (-1, 3))
    right = p.argmax(-1) == data.labels.view(-1, 3)
    assert found["accuracy"] == pytest.approx(float(right[:, 1:].float().mean()))
    assert found["invariance_error"] == pytest.approx(float(invariance_error(p[:, 0], p[:, 1:])), rel=1e-4)
    site = found["sites"]["image"]
    assert site["displacement_pixels"] == pytest.approx(
        31 * float(displacement(record["image"]).mean()), rel=1e-4
    )
    assert site["displacement_pixels"] > 0
    assert 0 <= site["not_converged"] <= 1
    assert list(found["accuracy_by_scale"]) == ["0.6-1", "1-1.6"]
    assert found["invariance_error_by_scale"]["0.6-1"] != found["invariance_error_by_scale"]["1-1.6"]


def test_a_phase_trains_its_part_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    phases = {"phases": [{"train": "canonicalizer"}]}
    config = RunConfig.parse({**settings, "steps": 3, "optim": phases})
    start, end = make_model(config).state_dict(), load_run(fit(config, tmp_path).folder).state_dict()
    changed = {name for name, value in end.items() if not torch.equal(start[name], value)}
    assert changed
    assert all("canonicalizer" in name for name in changed)


class Bright:
    """Dark and bright images with some noise, which are the two classes."""

    def __init__(self) -> None:
        noise = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        self.labels = torch.arange(64) % 2
        self.images = (255 * (0.5 * noise + 0.5 * self.labels.view(-1, 1, 1, 1))).to(torch.uint8)

    def __len__(self) -> int:
        return 64


def test_the_task_is_learned_beside_eq_5(settings: dict[str, Any], tmp_path: Path) -> None:
    registry().register(Odd(), "odd")
    try:
        data = {"name": "bright", "tests": {"same": {}}}
        model = {**settings["model"], "kwargs": {**settings["model"]["kwargs"], "num_classes": 2}}
        config = {**settings, "data": data, "model": model, "steps": 30, "optim": {"lr": 0.01}}
        found = fit(RunConfig.parse(config), tmp_path)
    finally:
        registry().unregister("odd")
    assert found.metrics["same"]["accuracy"] == 1.0
    assert found.steps == 30


class Scaled:
    """Two images, each at three factors; image i is filled with its label."""

    def __init__(self) -> None:
        self.factors = torch.tensor([0.5, 1.0, 2.0] * 2)
        self.groups = torch.tensor([0, 0, 0, 1, 1, 1])
        self.labels = torch.tensor([0, 0, 0, 1, 1, 1])
        self.images = (
            torch.tensor([0, 0, 255, 255, 255, 255]).to(torch.uint8).view(6, 1, 1, 1).expand(6, 1, 8, 8)
        )

    def __len__(self) -> int:
        return 6


class Threshold(nn.Module):
    """Sure of class 1 for bright images, of class 0 for dark ones."""

    def forward(self, x: Tensor) -> Tensor:
        return 100 * torch.stack([-x.mean((1, 2, 3)), x.mean((1, 2, 3))], dim=1)


def test_variants_and_factors_of_a_folder_like_data_set() -> None:
    found = evaluate(Threshold(), Scaled(), brackets=[(0.4, 0.7), (0.7, 1.5), (1.5, 2.5)])
    # the third image of the first group is taken for class 1: one of four pairs differs, by 2
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["invariance_error"] == pytest.approx(2 / 4)
    assert found["accuracy_by_scale"] == {"0.4-0.7": 1.0, "0.7-1.5": 1.0, "1.5-2.5": 0.5}


def test_a_finished_run_answers_and_another_run_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    config = RunConfig.parse({**settings, "steps": 2, "precision": "bfloat16"})
    first = fit(config, tmp_path)
    stamp = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    assert fit(config.model_copy(update={"log_every": 1}), tmp_path) == first
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    other = RunConfig.parse({**config.plain(), "seed": 1, "optim": {"lr": 1.0}})
    with pytest.raises(ConfigError, match=r"holds a run of other settings: optim.lr, seed differ"):
        fit(other, tmp_path)
    # settings that an earlier version wrote, with those that are gone at the value that changes nothing
    kept = json.loads((tmp_path / "settings.json").read_text())
    for value, refused in ((1, False), (4, True)):
        (tmp_path / "settings.json").write_text(json.dumps({**kept, "accumulation": value}))
        if refused:
            with pytest.raises(ConfigError, match="holds a run of other settings: accumulation differ"):
                fit(config, tmp_path)
        else:
            assert fit(config, tmp_path) == first
    (tmp_path / "mine.txt").write_text("kept")
    fit(other, tmp_path, resume=False)
    assert (tmp_path / "mine.txt").exists()
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns != stamp
    (tmp_path / "result.json").unlink()
    (tmp_path / "state.pt").write_bytes(b"half a sta")
    with pytest.raises(ConfigError, match=r"state.pt is damaged .*--fresh"):
        fit(other, tmp_path)


class Spoiled:
    """A loss that is NaN from the eighth step on."""

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        task = batch.task_loss(model(batch.images))
        return {"task": task, "own": task * (math.nan if batch.step >= 7 else 0.0)}


def test_nan_stops_the_run_and_keeps_the_last_good_state(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lse_train.running.make_method", lambda *_, **__: Spoiled())
    with pytest.raises(NotFiniteError) as caught:
        fit(RunConfig.parse({**settings, "adapt": None}), tmp_path)
    assert "step 8 of 12: the loss 'own' is nan; the last good state is in" in str(caught.value)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 5
    assert all(value.isfinite().all() for value in state["model"].values())


class Odd:
    """Data sets of these tests, most of which do not fit."""

    @hookimpl
    def lse_datasets(self) -> dict[str, Any]:
        class Empty:
            def __len__(self) -> int:
                return 0

            def __getitem__(self, item: int) -> Tensor:
                raise IndexError(item)

        class Unlabelled(Empty):
            def __len__(self) -> int:
                return 8

            def __getitem__(self, item: int) -> Tensor:
                return torch.full((1, 32, 32), item / 8)

        return {"empty": Empty, "unlabelled": Unlabelled, "bright": Bright}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"name": "empty"}}, "data set 'empty' (train) is empty"),
        ({"data": {"name": "unlabelled"}}, "has no labels: only method equivariance"),
        ({"data": {"name": "digit"}}, "unknown dataset 'digit'. Did you mean 'digits'?"),
        ({"data": {"name": "empty", "options": {"size": 3}}}, "data set 'empty': "),
        (
            {
                "model": {
                    "name": "vit_tiny_patch16_224",
                    "kwargs": {"in_chans": 1, "depth": 1, "img_size": 64},
                }
            },
            "the model cannot take images of",
        ),
        ({"model": {"name": "resnet10t", "kwargs": {**GREY, "num_classes": 9}}}, "tells 9 classes apart"),
        ({"model": {"name": "resnet10t", "kwargs": {"colour": 1}}}, "is given the keyword 'colour'"),
        ({"model": "resnet10tt"}, "unknown timm model 'resnet10tt'. Did you mean 'resnet10t'?"),
        ({"model": "nowhere:net"}, "made by the function 'nowhere:net', which would be imported"),
        (
            {"model": {"name": "resnet10t", "kwargs": GREY, "initial": "nowhere"}},
            "there is no folder nowhere",
        ),
        (
            {"model": {"name": "resnet10t", "kwargs": GREY, "initial": __file__}},
            "cannot be read as weights",
        ),
        ({"method": "equivariance", "adapt": None}, "the model has none with parameters"),
        ({"optim": {"phases": [{"train": "canonicalizer"}]}, "adapt": None}, "no part learns at step 0"),
        ({"device": "cuba"}, "device 'cuba' cannot be used here"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    settings: dict[str, Any], change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    registry().register(Odd(), "odd")
    try:
        with pytest.raises(LSEError) as caught:
            fit(RunConfig.parse({**settings, **change}), tmp_path)
    finally:
        registry().unregister("odd")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_without_labels_pretrain_and_are_measured(
    settings: dict[str, Any], cache: str, tmp_path: Path
) -> None:
    data = load_digits_dataset(DigitsConfig(count=8, resolution=32), cache)
    for number, image in enumerate(data.images):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{number}.png")
    pictures = {"name": "pictures", "options": {"root": str(tmp_path), "resolution": 32, "channels": 1}}
    config = {
        **settings,
        "data": {**pictures, "tests": {"same": {}}},
        "adapt": {**settings["adapt"], "sites": ["image", "layer2"]},
        "method": "equivariance",
        "steps": 3,
        "batch_size": 4,
    }
    found = fit(RunConfig.parse(config), tmp_path / "run").metrics["same"]
    assert found["accuracy"] is None
    assert found["images"] == 8
    assert all(site["displacement_pixels"] > 0 for site in found["sites"].values())
