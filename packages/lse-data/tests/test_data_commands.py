"""`lse data`, and the grids it draws."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from lse_core.errors import LSEError, OutputError
from lse_data import DataError, DigitsConfig, generate_digits, read_digits
from lse_data.commands.data import data
from lse_data.preview import grid, preview


def run(*args: object) -> Result:
    return CliRunner().invoke(data, [str(arg) for arg in args])


def ok(*args: object) -> Result:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def test_digits_writes_what_was_asked_for(tmp_path: Path):
    out = tmp_path / "set"
    options = ("--count", 4, "--scale", 0.8, 1.25, "--resolution", 32, "--seed", 7, "--split", "test")
    more = ("--directions", "vertical", "--directions", "diagonal", "--variants", 2, "--reference", "--png")
    result = ok("digits", "--out", out, *options, *more)
    assert "wrote 8 images of 32 x 32 px" in result.stdout
    config = DigitsConfig(
        4, (0.8, 1.25), 32, ("vertical", "diagonal"), 7, split="test", variants=2, reference=True
    )
    written, expected = read_digits(out), generate_digits(config)
    assert written.config == config
    assert torch.equal(written.images, expected.images)
    assert len(list((out / "png").iterdir())) == 8


def test_digits_defaults_are_those_of_the_settings(tmp_path: Path):
    ok("digits", "--out", tmp_path / "set", "--count", 1)
    assert read_digits(tmp_path / "set").config == DigitsConfig(1)


def test_digits_json_is_all_of_stdout(tmp_path: Path):
    result = ok("digits", "--out", tmp_path / "set", "--count", 2, "--resolution", 32, "--json")
    told = json.loads(result.stdout)
    assert told["folder"] == str(tmp_path / "set")
    assert told["images"] == 2
    assert told["tensors"]["images"] == {"dtype": "uint8", "shape": [2, 1, 32, 32]}


def test_digits_refuses_a_full_folder_before_the_work(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    # as many images as would take hours: the refusal has to come first
    result = run("digits", "--out", tmp_path, "--count", 10**7)
    assert isinstance(result.exception, OutputError)
    assert "--force" in str(result.exception)
    ok("digits", "--out", tmp_path, "--count", 1, "--resolution", 32, "--force")
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "args",
    [
        ("--scale", 2, 1),
        ("--scale", 1, 9),
        ("--count", 0),
        ("--source", "nowhere"),
        ("--variants", 0),
    ],
)
def test_digits_errors_leave_nothing_behind(tmp_path: Path, args: tuple):
    result = run("digits", "--out", tmp_path / "set", "--count", 2, *args)
    assert isinstance(result.exception, LSEError)
    assert "\n" not in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_preview_draws_the_settings(tmp_path: Path):
    out = tmp_path / "deep" / "grid.png"
    args = ("--rows", 2, "--cols", 3, "--resolution", 32, "--no-labels", "--variants", 4, "--start", 1)
    ok("preview", "--out", out, *args)
    expected = preview(
        generate_digits(DigitsConfig(2, resolution=32, variants=4)), 2, 3, start=1, labels=False
    )
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)


def test_preview_shows_a_written_folder(tmp_path: Path):
    ok("digits", "--out", tmp_path / "set", "--count", 5, "--resolution", 40, "--seed", 2)
    ok("preview", "--out", tmp_path / "grid.png", "--from", tmp_path / "set", "--rows", 1, "--cols", 5)
    expected = preview(generate_digits(DigitsConfig(5, resolution=40, seed=2)), 1, 5)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grid.png")), expected)


def test_preview_errors(tmp_path: Path):
    assert "must end in .png" in str(run("preview", "--out", tmp_path / "grid.jpg").exception)
    (tmp_path / "file").write_text("x")
    blocked = run("preview", "--out", tmp_path / "file" / "grid.png").exception
    assert isinstance(blocked, OutputError)
    missing = run("preview", "--out", tmp_path / "grid.png", "--from", tmp_path / "absent").exception
    assert isinstance(missing, DataError)
    assert run("preview", "--out", tmp_path / "grid.png", "--rows", 0).exit_code == 2


@pytest.mark.parametrize("command", [(), ("digits",), ("preview",)])
def test_help_shows_an_example(command: tuple[str, ...]):
    assert "Example:\n    lse data " in ok(*command, "--help").stdout


def test_listing_the_commands_loads_nothing_heavy():
    heavy = ("torch", "PIL", "sklearn")
    code = f"import sys, lse_data.commands.data; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_grid_holds_the_images_in_reading_order():
    dataset = generate_digits(DigitsConfig(7, resolution=16))
    drawn = preview(dataset, 2, 4, start=1, gap=3, labels=False)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (2 * (16 + 3) + 3, 4 * (16 + 3) + 3)
    seen = np.zeros(drawn.shape, bool)
    for cell in range(6):
        top, left = 3 + cell // 4 * 19, 3 + cell % 4 * 19
        np.testing.assert_array_equal(drawn[top : top + 16, left : left + 16], dataset.images[1 + cell, 0])
        seen[top : top + 16, left : left + 16] = True
    # 6 images for 8 cells: all the rest is background
    assert len(np.unique(drawn[~seen])) == 1


def test_captions_leave_the_images_alone():
    dataset = generate_digits(DigitsConfig(4, resolution=64))
    drawn = preview(dataset, 2, 2)
    strip = (drawn.shape[0] - 2) // 2 - 64 - 2
    plain = grid([image.numpy() for image in dataset.images[:, 0]], 2, 2, [("", "")] * 4)
    assert plain.shape == drawn.shape
    changed = np.argwhere(plain != drawn)
    inside = (changed[:, 0] - 2) % (64 + strip + 2)
    assert len(changed) > 100
    assert inside.min() >= 64


def test_grid_errors():
    dataset = generate_digits(DigitsConfig(2, resolution=16))
    with pytest.raises(DataError, match="at least 1 row"):
        preview(dataset, 0, 3)
    with pytest.raises(DataError, match=r"start must lie in 0\.\.1"):
        preview(dataset, 1, 1, start=2)
