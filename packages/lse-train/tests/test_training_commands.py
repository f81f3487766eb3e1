"""`lse train` and `lse evaluate`: what they print, write and refuse."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from PIL import Image

import lse_dec
from lse_core.cli import main
from lse_core.errors import DataError
from lse_core.pictures import PictureError
from lse_data.folder import Pictures

RUN = """
model: {name: resnet10t, kwargs: {in_chans: 1, num_classes: 1000, channels: [8, 8, 8, 8], stem_width: 8}}
data:
  name: digits
  options: {resolution: 32, scale: [0.6, 1.6]}
  train: {count: 16}
  val: {count: 4, split: val}
  tests: {far: {count: 4, split: test, variants: 2, reference: true}}
  mean: 0.1
  std: 0.3
adapt: {sites: [image], segments: 4, projection: 4, widths: [8]}
steps: 4
batch_size: 8
device: cpu
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path


def lse(*args: str) -> Any:
    return CliRunner().invoke(main, args, standalone_mode=True)


def test_a_run_is_trained_measured_and_measured_again(place: Path) -> None:
    done = lse("train", "run.yaml", "--set", "steps=3", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["steps"], result["folder"]) == (3, "runs/run/model")
    assert sorted(result["metrics"]) == ["far", "val"]
    assert json.loads((place / "runs/run/settings.json").read_text())["steps"] == 3
    measured = lse("evaluate", "runs/run", "--json")
    assert json.loads(measured.stdout) == result["metrics"]
    table = lse("evaluate", "runs/run/model", "--bracket", "0.6", "1.6").stdout
    for words in (
        "far: 8 images",
        "val: 4 images",
        "accuracy at 0.6-1.6",
        "image: mean displacement",
        "InvE",
    ):
        assert words in table
    other = lse("train", "run.yaml", "--set", "steps=2")
    assert other.exit_code == 1
    assert other.stderr.splitlines()[-1] == (
        "error: runs/run holds a run of other settings: steps differ; "
        "choose another --out, or --fresh to start over"
    )
    again = lse("train", "run.yaml", "--set", "steps=2", "--fresh")
    assert again.exit_code == 0
    assert "2 steps, " in again.stdout
    assert "lse export onnx runs/run --out runs/run.onnx" in again.stdout


def test_a_folder_that_save_wrote_is_measured_on_data_that_is_named(place: Path) -> None:
    adapted = lse_dec.adapt(timm.create_model("resnet10t", in_chans=1, num_classes=1000).eval(), "image")
    lse_dec.save(adapted, "saved")
    done = lse(
        "evaluate", "saved", "--data", "digits", "--set", "count=3", "--set", "resolution=32", "--json"
    )
    found = json.loads(done.stdout)["digits"]
    assert found["images"] == 3
    assert found["sites"]["image"]["displacement_pixels"] == pytest.approx(0, abs=1e-4)
    unnamed = lse("evaluate", "saved")
    assert unnamed.exit_code == 1
    assert unnamed.stderr == "error: saved tells no data set of its own: name one with --data\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "none.yaml"], "cannot read none.yaml: No such file or directory"),
        (
            ["train", "run.yaml", "--set", "optim.lrr=1"],
            "optim: unknown setting 'lrr'. Did you mean 'lr'?",
        ),
        (["train", "run.yaml", "--set", "steps"], "settings are key=value; got 'steps'"),
        (
            ["train", "run.yaml", "--seeds", "3"],
            "--seeds is an option for recipes, but run.yaml",
        ),
        (
            ["train", "run.yaml", "--reuse", "."],
            "--reuse is an option for recipes, but run.yaml",
        ),
        (["train", "run.yaml", "--reuse", "gone"], "Directory 'gone' does not exist"),
        (["evaluate", "nowhere"], "there is no folder nowhere"),
        (
            ["evaluate", "nowhere", "--data", "digits", "--device", "cuba"],
            "device 'cuba' cannot be used here",
        ),
    ],
)
def test_mistakes_are_one_line(place: Path, args: list[str], words: str) -> None:
    done = lse(*args)
    assert done.exit_code in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_goes_to_the_recipes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("lse_train.recipes.run_recipe", lambda *args: seen.append(args), raising=False)
    (place / "table.yaml").write_text("table: 2\n")
    (place / "runs").mkdir()
    args = ["--set", "a.b=[1]", "--seeds", "3", "--fresh", "--reuse", "runs"]
    done = lse("train", "table.yaml", "--profile", "cpu", *args)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    options = {"set": {"a.b": [1]}, "out": None, "fresh": True, "profile": "cpu", "seeds": 3, "json": False}
    options["trust"] = False
    expected = (Path("table.yaml"), {**options, "reuse": (Path("runs"),)})
    done = lse("train", "table.yaml", "--scale", "cpu", *args)  # as it was called before
    assert "--scale cpu is now called --profile cpu" in done.stderr
    assert done.stderr.count("\n") == 1
    assert seen == [expected, expected]


def test_ctrl_c_leaves_a_state_and_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lse_train import running

    real = running.Schedule.apply

    def interrupting(self: Any, optimiser: Any, step: int) -> dict[str, float]:
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, optimiser, step)

    with monkeypatch.context() as patch:
        patch.setattr(running.Schedule, "apply", interrupting)
        done = lse("train", "run.yaml")
    assert done.exit_code == 130
    assert "interrupted after step 2 of 4; the state is in runs/run: the same command goes on" in done.stderr
    assert lse("train", "run.yaml", "--json").exit_code == 0


def test_help_has_an_example_and_loads_no_torch() -> None:
    import subprocess

    code = (
        "import sys; from lse_core.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "lse train run.yaml --out runs/dec" in done.stdout
    assert done.stdout.endswith("False\n")


def test_pictures_are_read_from_a_folder_and_below(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "b.png")
    Image.new("L", (9, 30), 51).save(tmp_path / "deep" / "a.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    colour = Pictures(root=tmp_path, resolution=16)
    assert [path.name for path in colour.paths] == ["b.png", "a.jpg"]
    assert torch.equal(colour[0], torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 16, 16))
    grey = Pictures(root=tmp_path, resolution=16, channels=1)
    torch.testing.assert_close(grey[1], torch.full((1, 16, 16), 0.2))
    for settings, words in (
        ({}, "root is missing"),
        ({"root": tmp_path / "none"}, "there is no folder"),
        ({"root": tmp_path, "channels": 2}, "channels must be 1 or 3; got 2"),
    ):
        with pytest.raises(DataError, match=words):
            Pictures(**settings)
    (tmp_path / "deep" / "broken.png").write_bytes(b"nothing")
    with pytest.raises(PictureError, match=r"broken.png cannot be read as a picture"):
        Pictures(root=tmp_path)[2]
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        Pictures(root=tmp_path / "none")
