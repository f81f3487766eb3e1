"""Settings of the digits: what they accept, refuse and mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lse_core.errors import LSEError, UnknownNameError
from lse_train.data import DataError, DigitsConfig


def test_defaults_are_the_papers():
    config = DigitsConfig(10)
    assert config.scale == (0.4, 2.0)
    assert config.directions == ("horizontal", "vertical", "diagonal")
    # three digits at the largest factor just fit
    assert 3 * config.scale[1] * config.glyph_pixels == config.resolution


@pytest.mark.parametrize("resolution", [8, 91, 96, 97, 224, 331])
def test_six_times_the_glyph_fits_at_any_resolution(resolution: int):
    assert DigitsConfig(1, scale=(1.0, 6.0), resolution=resolution).scale == (1.0, 6.0)


def test_survives_json():
    config = DigitsConfig(
        7, scale=(0.8, 1.25), resolution=64, directions=("diagonal", "vertical"), split="val", glyph_size=12
    )
    assert DigitsConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config


def test_one_meaning_has_one_spelling():
    assert DigitsConfig(1, directions=("diagonal", "horizontal")) == DigitsConfig(
        1, directions=["horizontal", "diagonal"]
    )
    assert DigitsConfig(1, directions="vertical").directions == ("vertical",)
    assert DigitsConfig(1, source=Path("some") / "folder").source == str(Path("some/folder"))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"count": 0}, "count must be a whole number of at least 1"),
        ({"count": 2.0}, "count must be a whole number"),
        ({"count": True}, "count must be a whole number"),
        ({"scale": (2.0, 0.4)}, "low <= high"),
        ({"scale": (0.0, 1.0)}, "0 < low"),
        ({"scale": (0.4, 1.0, 2.0)}, "two numbers"),
        ({"scale": 1.0}, "two numbers"),
        ({"scale": "ab"}, "two numbers"),
        ({"scale": (0.4, float("nan"))}, "finite"),
        ({"scale": (0.4, 6.5)}, "does not fit 96 px"),
        ({"scale": (0.05, 1.0)}, "less than one pixel"),
        ({"reference": True, "scale": (0.2, 0.3), "glyph_size": 100}, "factor 1 is 100.0 px"),
        ({"resolution": 4}, "resolution must be a whole number of at least 8"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**64}, "below"),
        ({"split_seed": "0"}, "split_seed must be"),
        ({"variants": 0}, "variants must be"),
        ({"directions": ()}, "at least one"),
        ({"directions": 5}, "at least one"),
        ({"directions": ("vertical", "vertical")}, "each once"),
        ({"glyph_size": -3}, "positive"),
        ({"glyph_size": "big"}, "finite number"),
        ({"jitter": 1.5}, r"\[0, 1\]"),
        ({"jitter": None}, "jitter must be"),
        ({"antialias": 1}, "True or False"),
        ({"source": ""}, "sklearn"),
        ({"source": 3}, "sklearn"),
    ],
)
def test_refuses_values_out_of_range(settings: dict, text: str):
    with pytest.raises(DataError, match=text) as caught:
        DigitsConfig.from_mapping({"count": 4, **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "guess"),
    [
        ({"count": 4, "resolutoin": 96}, "Did you mean 'resolution'"),
        ({"count": 4, "split": "tset"}, "Did you mean 'test'"),
        ({"count": 4, "directions": ("horizontall",)}, "Did you mean 'horizontal'"),
    ],
)
def test_unknown_names_get_a_guess(settings: dict, guess: str):
    with pytest.raises(UnknownNameError, match=guess):
        DigitsConfig.from_mapping(settings)


def test_count_is_asked_for():
    with pytest.raises(LSEError, match="count is missing"):
        DigitsConfig.from_mapping({"seed": 1})
