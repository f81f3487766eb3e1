"""Folders that format version 1 wrote: they load, with the preprocessing that their run.json told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import lse_dec
from lse_core.card import card_of
from lse_dec.checkpoint.config import CheckpointError

SMALL: dict[str, Any] = {"num_classes": 3, "in_chans": 1}
RUN: dict[str, Any] = {
    "config": {
        "model": {"name": "resnet10t", "kwargs": {**SMALL, "pretrained": True}, "initial": "runs/start"},
        "data": {
            "name": "image_folder", "options": {"root": "photos", "crop": 0.8}, "train": {}, "val": None,
            "tests": {"all": {}}, "mean": [0.1], "std": [0.3], "workers": 0,
        },
        "adapt": None, "precision": "float32", "steps": 3, "seed": 7,
    },
    "mean": [0.1], "std": [0.3], "resolution": [48, 64],
}  # fmt: skip


def images() -> torch.Tensor:
    return torch.randn(2, 1, 48, 64, generator=torch.Generator().manual_seed(0))


def adapted() -> lse_dec.AdaptedModel:
    torch.manual_seed(0)
    model = lse_dec.adapt(timm.create_model("resnet10t", **SMALL).eval(), "layer2", solver="naive")
    torch.nn.init.normal_(model.canonicalizers["layer2"].update.head.weight)
    return model


def as_version_1(folder: Path, source: dict[str, Any]) -> dict[str, Any]:
    """Turn what `save` wrote into what version 1 wrote."""
    now = json.loads((folder / "config.json").read_text())
    old = {
        "format": "lse-dec", "version": 1, "lse_dec": "0.1.0", "model": source, **now["adapt"],
        "dtype": now["dtype"], "weights": now["weights"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(old))
    return old


def test_an_adapted_model_by_name(tmp_path: Path) -> None:
    model = adapted()
    lse_dec.save(model, tmp_path)
    as_version_1(tmp_path, {"source": "timm", "name": "resnet10t", "kwargs": SMALL})
    again = lse_dec.load(tmp_path)
    assert torch.equal(again(images()), model(images()))
    told = card_of(again).preprocess  # of timm's card, for the model's channels
    assert told is not None
    assert (told.channels, told.mean) == (1, (0.5,))
    lse_dec.save(again, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["version"] == 2


def test_an_adapted_model_that_must_be_given(tmp_path: Path) -> None:
    model = adapted()
    lse_dec.save(model, tmp_path)
    as_version_1(tmp_path, {"source": "given", "class": "mine.Net"})
    with pytest.raises(
        CheckpointError, match=r"make its base mine\.Net: make it yourself and pass it as load"
    ):
        lse_dec.load(tmp_path)
    again = lse_dec.load(tmp_path, timm.create_model("resnet10t", **SMALL))
    assert torch.equal(again(images()), model(images()))


@pytest.mark.parametrize("kind", ["adapted", "plain"])
def test_a_run(tmp_path: Path, kind: str) -> None:
    model: Any = adapted() if kind == "adapted" else lse_dec.unadapt(adapted())
    place = tmp_path / "run" / "model"
    lse_dec.save(model, place)
    (place / "run.json").write_text(json.dumps(RUN))
    if kind == "adapted":
        as_version_1(place, {"source": "given", "class": "timm.models.resnet.ResNet"})
    else:
        (place / "config.json").unlink()
    again = lse_dec.load(tmp_path / "run")
    assert isinstance(again, lse_dec.AdaptedModel) is (kind == "adapted")
    assert torch.equal(again(images()), model(images()))
    card = card_of(again)
    assert card.preprocess is not None
    assert card.preprocess.plain() == {
        "channels": 1, "size": [48, 64], "crop_mode": "center", "crop_pct": 0.8, "interpolation": "bicubic",
        "mean": [0.1], "std": [0.3], "colours": "rgb",
    }  # fmt: skip
    assert card.training is not None
    assert card.training["data"]["tests"] == {"all": {}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("sites"), r"config\.json is of an older version and damaged \(KeyError: 'sites'\)"),
        (lambda c: c.update(model=3), "older version and damaged"),
        (lambda c: c.update(weights="x"), "older version and damaged"),
        (lambda c: c.update(sytes=[]), "unknown setting 'sytes'"),
        (lambda c: c["weights"].update(sha256=hashlib.sha256(b"").hexdigest()), "checksum"),
    ],
)
def test_damage_is_told_in_one_line(tmp_path: Path, change: Any, words: str) -> None:
    lse_dec.save(adapted(), tmp_path)
    old = as_version_1(tmp_path, {"source": "timm", "name": "resnet10t", "kwargs": SMALL})
    change(old)
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match=words) as caught:
        lse_dec.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("told", ["[]", '{"config": {}}', '{"config": {"model": 1}, "mean": 3}'])
def test_a_damaged_run(tmp_path: Path, told: str) -> None:
    lse_dec.save(lse_dec.unadapt(adapted()), tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "run.json").write_text(told)
    with pytest.raises(CheckpointError, match=r"run\.json is of an older version and damaged"):
        lse_dec.load(tmp_path)
