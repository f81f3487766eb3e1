"""Settings of the digits: what they accept, refuse and mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lse_core.errors import LSEError, UnknownNameError
from lse_data import DataError, DigitsConfig


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
        ({"count": 0}, "'count': input should be greater than or equal to 1; got 0"),
        ({"count": 2.0}, "'count': input should be a valid integer; got 2.0"),
        ({"count": True}, "'count': input should be a valid integer; got True"),
        ({"scale": (2.0, 0.4)}, "low <= high"),
        ({"scale": (0.0, 1.0)}, "'scale.0': input should be greater than 0"),
        ({"scale": (0.4, 1.0, 2.0)}, "'scale': tuple should have at most 2 items"),
        ({"scale": 1.0}, "'scale': input should be a valid tuple; got 1.0"),
        ({"scale": "ab"}, "'scale': input should be a valid tuple"),
        ({"scale": (0.4, float("nan"))}, "finite"),
        ({"scale": (0.4, 6.5)}, "does not fit 96 px"),
        ({"scale": (0.05, 1.0)}, "less than one pixel"),
        ({"reference": True, "scale": (0.2, 0.3), "glyph_size": 100}, "factor 1 is 100.0 px"),
        ({"resolution": 4}, "'resolution': input should be greater than or equal to 8"),
        ({"seed": -1}, "'seed': input should be greater than or equal to 0"),
        ({"seed": 2**64}, "'seed': input should be less than 9223372036854775808"),
        ({"split_seed": "0"}, "'split_seed': input should be a valid integer; got '0'"),
        ({"variants": 0}, "'variants': input should be greater than or equal to 1"),
        ({"directions": ()}, "'directions': value should have at least 1 item"),
        ({"directions": 5}, "'directions.0': input should be a valid string; got 5"),
        ({"directions": ("vertical", "vertical")}, "each must be named once"),
        ({"glyph_size": -3}, "'glyph_size': input should be greater than 0"),
        ({"glyph_size": "big"}, "'glyph_size': input should be a valid number; got 'big'"),
        ({"jitter": 1.5}, "'jitter': input should be less than or equal to 1"),
        ({"jitter": None}, "'jitter': input should be a valid number"),
        ({"antialias": 1}, "'antialias': input should be a valid boolean; got 1"),
        ({"source": ""}, "'source': value should have at least 1 item"),
        ({"source": 3}, "'source': input should be a valid string; got 3"),
    ],
)
def test_refuses_values_out_of_range(settings: dict, text: str):
    with pytest.raises(DataError, match=text) as caught:
        DigitsConfig(**{"count": 4, **settings})
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
    with pytest.raises(LSEError, match="'count' is missing"):
        DigitsConfig.from_mapping({"seed": 1})
