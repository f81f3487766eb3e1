"""From photographs to a set of scaled ones, and from there to `lse measure`: the folder is taken as it is."""

import json
from pathlib import Path

import numpy as np
import timm
import torch
from click.testing import CliRunner
from PIL import Image

import lse_dec
from lse_core.cli import main
from lse_core.preprocess import Preprocess

SMALL = {"num_classes": 2, "channels": (4, 4, 4, 4), "stem_width": 4}


def run(*args: object) -> str:
    done = CliRunner().invoke(main, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_measure_takes_the_folder_that_scale_objects_writes(tmp_path: Path) -> None:
    y, x = np.mgrid[:48, :64]
    for number, name in enumerate(("cup", "bowl")):
        disc = (y - 24) ** 2 + (x - 30 - 4 * number) ** 2 <= 100
        picture = np.stack([3 * x, 4 * y, 60 + 0 * x], -1).astype(np.uint8)
        picture[disc] = (220, 30, 30 + 100 * number)
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / f"photos/{name}/p.png")
        Image.fromarray(disc.astype(np.uint8) * 255).save(tmp_path / f"photos/{name}/p.mask.png")
    run("data", "scale-objects", tmp_path / "photos", "--out", tmp_path / "set", "--factors", "0.7,1,1.3",
        "--jobs", "1")  # fmt: skip
    torch.manual_seed(0)
    how = Preprocess(channels=3, size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    model = timm.create_model("resnet10t", **SMALL).eval()
    lse_dec.save(model, tmp_path / "model", preprocess=how, class_names=("bowl", "cup"), model_kwargs=SMALL)
    run("measure", tmp_path / "model", tmp_path / "set/images", "--masks", tmp_path / "set/masks",
        "--change", "objects", "--out", tmp_path / "measured")  # fmt: skip
    told = json.loads((tmp_path / "measured/results.json").read_text())
    (found,) = told["measurements"]
    assert found["problems"] == []
    counts = found["counts"]
    assert (counts["pictures"], counts["without_objects"], counts["bad_masks"]) == (6, 0, 0)
    (sweep,) = found["sweeps"]
    assert {level["cases"] for level in sweep["levels"]} == {6}
