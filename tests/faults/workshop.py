"""The workshop: a folder with one of everything, copied for every fault.

`python tests/faults/workshop.py FOLDER` makes one to try things in.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import chdir
from pathlib import Path

import timm
import torch
from click.testing import CliRunner
from PIL import Image

import lse_dec
import lse_export
from lse_core.cli import main
from lse_core.preprocess import Preprocess

SMALL = {"num_classes": 2, "channels": (4, 4, 4, 4), "stem_width": 4}
ADAPT = {"steps": 2, "segments": 3, "projection": 4, "widths": [4], "resolution": 8}
RUN = """\
model: {name: resnet10t, kwargs: {num_classes: 2, channels: [4, 4, 4, 4], stem_width: 4}}
data:
  name: image_folder
  options: {resolution: 32}
  train: {root: photos}
  val: {root: photos}
adapt: {sites: [image], steps: 2, segments: 3, projection: 4, widths: [4], resolution: 8}
steps: 2
batch_size: 2
device: cpu
"""
RECIPE = """\
table: small
title: A small table
seeds: 1
run:
  model: {name: resnet10t, kwargs: {in_chans: 1, num_classes: 1000, channels: [4, 4, 4, 4], stem_width: 4}}
  data:
    name: digits
    options: {resolution: 32, count: 8}
    tests: {all: {split: test}}
    mean: 0.1
    std: 0.3
  steps: 2
  batch_size: 4
  device: cpu
axes:
  rule:
    residual: {adapt.sites: [image], adapt.rule: residual}
  model: {small: {}}
reports:
  - {rows: rule, columns: model}
"""


def run(*args: str) -> None:
    done = CliRunner().invoke(main, list(args), standalone_mode=True)
    assert done.exit_code == 0, done.output


def build(place: Path) -> None:
    """Pictures, a saved model with and without canonicalizers, an ONNX file, data sets, a run, a recipe."""
    place.mkdir(parents=True, exist_ok=True)
    with chdir(place):
        for name, colour in (("cup", (200, 60, 20)), ("bowl", (20, 60, 200))):
            (place / "photos" / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (40, 36 + i), colour).save(place / "photos" / name / f"{i}.png")
        torch.manual_seed(0)
        small = timm.create_model("resnet10t", **SMALL)
        prepare = Preprocess(channels=3, size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
        told = {"preprocess": prepare, "class_names": ("bowl", "cup"), "model_kwargs": SMALL}
        lse_dec.save(small, place / "plain", **told)
        adapted = lse_dec.adapt(small, "image", **ADAPT).eval()
        lse_dec.save(adapted, place / "model", **told)
        lse_export.export_onnx(lse_dec.load(place / "model"), torch.rand(2, 3, 32, 32), place / "model.onnx")
        run("data", "digits", "--out", "digits", "--count", "4", "--resolution", "32")
        (place / "run.yaml").write_text(RUN, encoding="utf-8")
        (place / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        run("train", "run.yaml", "--out", "run")
        shutil.rmtree(place / "run" / "tensorboard")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    build(Path(sys.argv[1]).absolute())
