"""Preprocessing as timm has it, its text, and what a model says of its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from lse_core import Card, Preprocess, attach, card_of, preprocess_of
from lse_core.errors import LSEError, UnknownNameError
from lse_core.pictures import PictureError
from lse_core.settings import SettingsError, validated

GREY = Preprocess(channels=1, size=(4, 6), mean=(0.25,), std=(0.5,))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(
        0, 256, (max(height // 8, 2), max(width // 8, 2), 3), np.uint8
    )
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    source=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    square=st.booleans(),
    crop_pct=st.sampled_from([0.7, 0.875, 0.95, 1.0]),
    crop_mode=st.sampled_from(["center", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
def test_pixels_are_those_of_timms_transform(
    size: tuple[int, int],
    source: tuple[int, int],
    square: bool,
    crop_pct: float,
    crop_mode: str,
    interpolation: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = pytest.importorskip("timm.data")
    size = (size[0], size[0]) if square else size
    config = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25), "crop_pct": crop_pct, "crop_mode": crop_mode}
    config |= {"interpolation": interpolation, "input_size": (3, *size)}
    path = tmp_path_factory.mktemp("timm") / "a.png"
    made = picture(*source)
    made.save(path)
    transform = data.create_transform(
        input_size=(3, *size), mean=config["mean"], std=config["std"], crop_pct=crop_pct,
        crop_mode=crop_mode, interpolation=interpolation,
    )  # fmt: skip
    assert torch.equal(Preprocess.from_timm(config).read(path), transform(made))


NAMES = (
    *("resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0", "convnext_tiny"),
    *("swin_tiny_patch4_window7_224", "vit_small_patch14_dinov2", "inception_v3"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_timm_says_what_timm_says_of_it(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
    told, found = timm.data.resolve_model_data_config(model), preprocess_of(model)
    assert found is not None
    assert (found.channels, *found.size) == told["input_size"]  # type: ignore[misc]
    for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode"):
        assert getattr(found, key) == told[key]


def test_a_model_made_for_other_pictures_than_its_config() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", in_chans=1, img_size=(32, 48))
    found = preprocess_of(model)
    assert found is not None
    assert (found.channels, found.size, found.mean, found.std) == (1, (32, 48), (0.5,), (0.5,))
    other = preprocess_of(model, (64, 64))
    assert other is not None
    assert other.size == (64, 64)
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": "border"}
    with pytest.raises(SettingsError, match=r"data config: .crop_mode.: .*; got .border."):
        preprocess_of(model)
    assert preprocess_of(nn.Conv2d(3, 4, 3)) is None


def test_text_and_back() -> None:
    assert Preprocess.from_json(GREY.to_json()) == GREY
    assert json.loads(GREY.to_json())["size"] == [4, 6]
    with pytest.raises(LSEError, match=r"a\.onnx: the preprocessing is not valid JSON"):
        Preprocess.from_json("{", "a.onnx")
    with pytest.raises(UnknownNameError, match=r"a\.onnx: unknown setting 'maen'. Did you mean 'mean'\?"):
        Preprocess.from_json(json.dumps({**GREY.plain(), "maen": [0.1]}), "a.onnx")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"std": (0.0,)}, "'std.0': input should be greater than or equal to 0.000001"),
        ({"std": (1e-320,)}, "'std.0': input should be greater than or equal to 0.000001"),
        ({"crop_pct": 1e-9}, "'crop_pct': input should be greater than or equal to 0.01"),
        ({"size": (10**6, 4)}, "'size.0': input should be less than or equal to 65536"),
        ({"mean": (0.1, 0.2)}, "mean has 2 numbers for 1 channels"),
        ({"mean": (float("nan"),)}, "'mean.0': input should be a finite number"),
        ({"size": (0, 4)}, "'size.0': input should be greater than or equal to 1"),
        ({"crop_pct": 1.5}, "'crop_pct': input should be less than or equal to 1"),
        ({"crop_mode": "border"}, "'crop_mode': input should be 'center' or 'squash'"),
        ({"channels": "many"}, "'channels': input should be a valid integer"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        validated(Preprocess, {**GREY.plain(), **change}, "here")
    assert str(caught.value).startswith("here: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_settings_are_named() -> None:
    with pytest.raises(SettingsError, match="'std' is missing"):
        validated(Preprocess, {"channels": 1, "size": (4, 4), "mean": (0.5,)})


def test_numbers_and_colours(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (255, 51, 0)).save(tmp_path / "a.png")
    rgb = Preprocess(channels=3, size=(4, 6), mean=(0.5, 0.2, 0.0), std=(0.25, 0.5, 1.0))
    assert rgb.read(tmp_path / "a.png")[:, 0, 0].tolist() == pytest.approx([2.0, 0.0, 0.0])
    bgr = Preprocess(channels=3, size=(4, 6), mean=(0.0, 0.2, 0.5), std=(1.0, 0.5, 0.25), colours="bgr")
    assert torch.equal(bgr.read(tmp_path / "a.png"), rgb.read(tmp_path / "a.png").flip(0))
    for one in (rgb, bgr):  # what people look at is RGB again
        shown = one.denormalise(one.batch([tmp_path / "a.png"]))
        torch.testing.assert_close(shown[0, :, 0, 0], torch.tensor([1.0, 0.2, 0.0]))
    assert rgb.sample(3).shape == (3, 3, 4, 6)
    assert torch.equal(rgb.sample(), rgb.sample())
    images = torch.rand(2, 1, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(GREY.denormalise(GREY.normalise(images)), images)


def test_a_model_that_takes_any_size_gets_pictures_as_they_are(tmp_path: Path) -> None:
    free = Preprocess(channels=1, size=None, mean=(0.0,), std=(1.0,))
    for name, size in (("a.png", (9, 5)), ("b.png", (9, 5)), ("c.png", (5, 9))):
        picture(size[1], size[0]).save(tmp_path / name)
    assert free.batch([tmp_path / "a.png", tmp_path / "b.png"]).shape == (2, 1, 5, 9)
    with pytest.raises(LSEError, match="differ in size"):
        free.batch([tmp_path / "a.png", tmp_path / "c.png"])
    with pytest.raises(LSEError, match="it takes any: give one"):
        free.sample()


def test_the_card_stays_with_the_model_inside() -> None:
    model = nn.Conv2d(1, 2, 3)
    assert card_of(model) == Card()
    attach(model, preprocess=GREY)
    attach(model, class_names=("a", "b"))
    assert card_of(model) == Card(preprocess=GREY, class_names=("a", "b"))
    assert preprocess_of(model) == GREY
    assert list(model.state_dict()) == ["weight", "bias"]
    with pytest.raises(TypeError):
        attach(model, colour="red")


def test_a_long_thin_picture_does_not_exhaust_the_memory(tmp_path: Path) -> None:
    Image.new("L", (200_000, 1)).save(tmp_path / "thin.png")
    prepare = Preprocess(channels=1, size=(48, 48), mean=(0.0,), std=(1.0,))
    with pytest.raises(PictureError, match=r"thin\.png: a picture of 200000 x 1 pixels is so long and thin"):
        prepare.read(tmp_path / "thin.png")
    squashed = validated(Preprocess, {**prepare.plain(), "crop_mode": "squash"})
    assert squashed.read(tmp_path / "thin.png").shape == (1, 48, 48)
    with pytest.raises(LSEError, match="mode 'L'; got 'RGBA'"):
        prepare.pixels(Image.new("RGBA", (4, 4)))
    with pytest.raises(LSEError, match="no pictures were given"):
        prepare.batch([])
