"""The real weights and photographs that tests and pages of results use: they are what they are said to be."""

import json
import shutil

import photographs
import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from lse_core import Preprocess
from lse_core.cli import main
from lse_core.pictures import read_picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lite0")
    photographs.write_weights(folder / "efficientnet_lite0.safetensors")
    photographs.write_photographs(folder / "photographs")
    return folder


def test_the_written_weights_say_espresso_and_cat(folder):
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(load_file(folder / "efficientnet_lite0.safetensors"))
    prepare = Preprocess(**photographs.PREPROCESS)
    pictures = prepare.batch(folder / "photographs" / name for name in ("coffee.png", "chelsea.png"))
    with torch.no_grad():
        sure, answers = model(pictures).softmax(1).max(1)
    assert answers.tolist() == [967, 285]  # espresso, Egyptian cat
    torch.testing.assert_close(sure, torch.tensor([0.94, 0.39]), atol=0.02, rtol=0)
    named = photographs.lite0()
    assert [named.lse_card.class_names[i] for i in answers] == ["espresso", "Egyptian cat"]


def test_every_photograph_has_a_box_inside_of_it(folder):
    boxes = json.loads((folder / "photographs" / "boxes.json").read_text())
    seen = {image["id"]: image for image in boxes["images"]}
    assert {image["file_name"] for image in seen.values()} == {
        path.name for path in (folder / "photographs").glob("*.png")
    }
    assert sorted(box["image_id"] for box in boxes["annotations"]) == sorted(seen)
    for box in boxes["annotations"]:
        image, (x, y, width, height) = seen[box["image_id"]], box["bbox"]
        picture = read_picture(folder / "photographs" / image["file_name"])
        assert (image["width"], image["height"]) == picture.size
        assert 0 <= x < x + width <= picture.width
        assert 0 <= y < y + height <= picture.height


def test_espresso_falls_as_the_cup_shrinks(folder, tmp_path):
    """By `lse measure` alone, with real weights: what the README and the first page of the site say."""
    photographs_with_boxes = folder / "photographs"
    shutil.copy(photographs_with_boxes / "coffee.png", tmp_path)
    shutil.copy(photographs_with_boxes / "boxes.json", tmp_path)
    weights = folder / "efficientnet_lite0.safetensors"
    words = [
        "measure",
        "tf_efficientnet_lite0",
        tmp_path / "coffee.png",
        "--weights",
        weights,
        "--change",
        "objects",
    ]
    words += ["--factors", "0.5,0.7,1", "--orbit", "0", "--out", tmp_path / "out", "--json"]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    (sweep,) = json.loads(done.stdout)["measurements"][0]["sweeps"]
    shares = [level["probability"] for level in sweep["levels"]]
    assert shares == pytest.approx([0.49, 0.76, 0.94], abs=0.02)
    assert shares == pytest.approx([0.55, 0.74, 0.94], abs=0.1)  # with another box, by another cut-out
