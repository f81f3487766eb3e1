"""Grounding DINO, SAM, SAM 2 and LaMa, read from files: tiny random models of the real ones' classes."""

import json
import shutil
from pathlib import Path

import numpy as np
import object_models
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from lse_core.cli import main
from lse_core.errors import DataError, LSEError, OutputError
from lse_data.scaling import Shot
from lse_data.scaling.lama import Lama
from lse_data.scaling.pretrained import GroundingDino, Sam

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
BOXES = [(15.0, 10.0, 45.0, 40.0), (2.0, 2.0, 30.0, 30.0)]


def photograph(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    values = np.stack([60 + x, 60 + y, np.full_like(x, 60)], -1).astype(np.uint8)
    values[(y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 4) ** 2] = (220, 30, 30)
    return values


def normalised(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(((picture / 255 - MEAN) / STD).transpose(2, 0, 1)[None]).float()


def shot(picture: np.ndarray, label: str = "") -> Shot:
    return Shot(picture, Path("p.png"), "p.png", (picture.shape[1], picture.shape[0]), label)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    object_models.write_grounding_dino(folder / "dino")
    object_models.write_sam(folder / "sam", seed=7)
    object_models.write_sam2(folder / "sam2", seed=7)
    object_models.write_lama(folder / "lama.onnx")
    object_models.write_lama(folder / "any.onnx", size=None, white=1.0)
    object_models.write_lama_script(folder / "lama.pt")
    return folder


def test_grounding_dino_gives_the_boxes_that_its_model_has(models):
    from transformers import GroundingDinoForObjectDetection

    picture, model = photograph(96, 128), GroundingDinoForObjectDetection.from_pretrained(models / "dino")
    words = [2, *(7 + object_models.PROMPT_WORDS.index(word) for word in ("a", "red", "disc")), 5, 3]
    ids = torch.tensor([words])
    with torch.no_grad():
        told = model(normalised(picture), ids, token_type_ids=0 * ids, attention_mask=0 * ids + 1)
    scores = told.logits.sigmoid().amax(-1)[0].numpy()
    x, y, w, h = told.pred_boxes[0].double().numpy().T
    corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).clip(0, 1) * [128, 96, 128, 96]
    kept: list[np.ndarray] = []
    for box in corners[np.argsort(-scores)]:
        apart = all(overlap(box, other) <= 0.5 for other in kept)
        if min(box[2:] - box[:2]) >= 1 and apart:
            kept.append(box)
    assert 2 < len(kept) < len(corners)
    settings = {"threshold": 0.0, "overlap": 0.5, "most": 50}
    find = GroundingDino(str(models / "dino"), prompt="A red disc", **settings)
    marks = find(shot(picture))
    np.testing.assert_allclose([mark.box for mark in marks], kept, atol=1e-3)
    assert {mark.name for mark in marks} == {"a red disc"}
    assert {mark.size for mark in marks} == {(128, 96)}
    # by default what to look for is the name of the folder, and the one box of the highest score
    find.prompt, find.most = "", 1
    (best,) = find(shot(picture, label="a_red_disc"))
    assert best.box == marks[0].box
    assert find(shot(picture, label="cat"))[0].box != best.box
    find.threshold = float(scores.max()) + 1e-4
    assert find(shot(picture, label="a_red_disc")) == []
    for label, words in (("", "lies in no folder"), ("zebra", "has no word for a part of 'zebra.'")):
        with pytest.raises(DataError, match=words):
            find(shot(picture, label=label))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    inner = np.prod((np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0))
    return float(inner / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inner))


def test_words_of_a_file_stand_for_folders(models, tmp_path):
    (tmp_path / "words.txt").write_text("n0001 red disc, big disc\n\nn0002 cat\n")
    find = GroundingDino(str(models / "dino"), words=str(tmp_path / "words.txt"), threshold=0.0)
    picture = photograph(96, 128)
    (named,) = find(shot(picture, label="n0001"))
    assert named.name == "red disc"
    (other,) = GroundingDino(str(models / "dino"), prompt="red disc", threshold=0.0)(shot(picture))
    assert named.box == other.box
    before = find.versions()
    assert {"words", "model", "transformers"} == before.keys()
    (tmp_path / "words.txt").write_text("n0001\n")
    with pytest.raises(DataError, match="line 1 must be"):
        GroundingDino(str(models / "dino"), words=str(tmp_path / "words.txt"))


@pytest.mark.parametrize(("name", "height"), [("sam", 48), ("sam2", 64)])
def test_sam_gives_the_masks_that_its_model_has(models, name, height):
    from transformers import Sam2Model, SamModel

    picture = photograph(height, 64)
    model = (SamModel if name == "sam" else Sam2Model).from_pretrained(models / name)
    padded = torch.nn.functional.pad(normalised(picture), (0, 0, 0, 64 - height))
    with torch.no_grad():
        low = model(padded, input_boxes=torch.tensor([BOXES]), multimask_output=False).pred_masks[0]
    wanted = torch.nn.functional.interpolate(low, (64, 64), mode="bilinear")[:, 0, :height] > 0
    masks = Sam(str(models / name))(picture, BOXES)
    assert [mask.shape for mask in masks] == [(height, 64)] * 2
    for mask, other in zip(masks, wanted.numpy(), strict=True):
        assert 0.05 < mask.mean() < 0.95
        assert (mask != other).mean() < 0.002  # pixels at the very edge
    assert (masks[0] != masks[1]).any()
    # a picture twice as large has the same object twice as large, as far as resizing lets it be the same
    large = Sam(str(models / name))(picture.repeat(2, 0).repeat(2, 1), [tuple(2 * s for s in BOXES[0])])[0]
    assert large.shape == (2 * height, 128)
    assert (large[::2, ::2] != masks[0]).mean() < 0.1


def blurred(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """What the file of `write_lama` computes, in float64."""
    kernel = np.random.default_rng(0).uniform(0, 2 / 81, (3, 1, 9, 9))[:, 0]
    seen = np.where(hole[..., None], 0.0, picture)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(seen, [(4, 4), (4, 4), (0, 0)]), (9, 9), (0, 1))
    return np.where(hole[..., None], np.einsum("hwcij,cij->hwc", windows, kernel), picture)


def test_lama_gives_what_its_file_computes(models):
    picture, hole = photograph(64, 64), np.zeros((64, 64), bool)
    hole[20:33, 5:50] = True
    made = Lama(str(models / "lama.onnx"))(picture, hole)
    assert np.abs(made - blurred(picture, hole)).max() <= 0.51
    # any size: sides that are no multiples of 8 are continued by their mirror image
    odd, hole = photograph(50, 61), np.zeros((50, 61), bool)
    hole[40:, 50:] = True
    wide = [(0, 6), (0, 3)]
    wanted = blurred(np.pad(odd, [*wide, (0, 0)], mode="symmetric"), np.pad(hole, wide, mode="symmetric"))
    made = Lama(str(models / "any.onnx"), white=1.0)(odd, hole)
    assert np.abs(made - wanted[:50, :61]).max() <= 0.51
    # one size: the picture is resized to it and back
    large, hole = photograph(96, 128), np.zeros((96, 128), bool)
    hole[5:9, 5:9] = True
    resized = Lama(str(models / "lama.onnx"))(large, hole)
    assert resized.shape == large.shape
    assert np.abs(resized.astype(int) - large)[:10, 20:].max() <= 4
    traced = Lama(str(models / "lama.pt"), trust=True)(odd, np.zeros((50, 61), bool))
    assert np.array_equal(traced, odd)
    with pytest.raises(
        DataError, match=r"up to 220, where white should be 1: give --set inpainter.white=255"
    ):
        Lama(str(models / "lama.onnx"), white=1.0)(picture, np.zeros((64, 64), bool))
    with pytest.raises(DataError, match=r"give --set inpainter.white=1"):
        Lama(str(models / "any.onnx"))(odd, np.zeros((50, 61), bool))


def command(photos: Path, out: Path, *more: str):
    given = ["data", "scale-objects", str(photos), "--out", str(out), "--factors", "1,1.5", "--crop",
             "--jobs", "1", "--json", *more]  # fmt: skip
    return CliRunner().invoke(main, given, standalone_mode=False)


def stages(models: Path, segmenter: str = "sam2") -> list[str]:
    """Options of the command that name all three."""
    return ["--detector", "grounding-dino", "--set", f"detector.model={models / 'dino'}",
            "--set", "detector.threshold=0.0", "--segmenter", "sam",
            "--set", f"segmenter.model={models / segmenter}",
            "--inpainter", "lama", "--set", f"inpainter.model={models / 'lama.onnx'}"]  # fmt: skip


def test_the_paper_s_stages_make_a_set_by_the_command(models, tmp_path):
    (tmp_path / "photos/red_disc").mkdir(parents=True)
    Image.fromarray(photograph(96, 128)).save(tmp_path / "photos/red_disc/p.png")
    done = command(tmp_path / "photos", tmp_path / "set", *stages(models))
    told = json.loads(done.stdout)
    assert (told["kept"], told["written"], told["made"]) == (1, 2, 1), told["rejects"]
    manifest = json.loads((tmp_path / "set/manifest.json").read_text())
    (record,) = manifest["pictures"]
    (thing,) = record["objects"]
    find = GroundingDino(str(models / "dino"), prompt="red disc", threshold=0.0)
    (mark,) = find(shot(photograph(96, 128)))
    assert thing["name"] == "red disc"
    np.testing.assert_allclose(thing["given_box"], mark.box, atol=0.01)
    mask = Sam(str(models / "sam2"))(photograph(96, 128), [mark.box])[0]
    assert thing["area"] == mask.sum()
    assert (record["folder"], record["quality"]["outside_seam"]) == ("red_disc", 0)
    told = {name.partition(".")[2] for name in manifest["versions"] if "." in name}
    assert told == {"model", "transformers", "onnxruntime"}
    assert json.loads(command(tmp_path / "photos", tmp_path / "set", *stages(models)).stdout)["made"] == 0
    # other weights make another set
    shutil.copytree(models, tmp_path / "models")
    object_models.write_sam2(tmp_path / "models/sam2", seed=2)
    moved = json.loads(command(tmp_path / "photos", tmp_path / "set2", *stages(tmp_path / "models")).stdout)
    assert moved["made"] == 1
    object_models.write_sam2(tmp_path / "models/sam2", seed=3)
    other = command(tmp_path / "photos", tmp_path / "set2", *stages(tmp_path / "models"))
    assert isinstance(other.exception, OutputError)
    assert "other settings (segmenter.model)" in str(other.exception)


def test_models_are_named_on_the_hub_and_found_in_its_cache(models, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name, source in (("mine--sam", models / "sam"), ("mine--lama", models)):
        place = tmp_path / f"models--{name}"
        (place / "refs").mkdir(parents=True)
        (place / "refs/main").write_text("0" * 40)
        shutil.copytree(source, place / "snapshots" / ("0" * 40))
    picture = photograph(48, 64)
    assert np.array_equal(Sam("mine/sam")(picture, BOXES), Sam(str(models / "sam"))(picture, BOXES))
    assert Lama("mine/lama:lama.onnx").versions() == Lama(str(models / "lama.onnx")).versions()
    with pytest.raises(
        LSEError, match=r"others/sam is no folder, and not in .* cache .* --trust to fetch it"
    ):
        Sam("others/sam")
    with pytest.raises(LSEError, match="--trust fetches it"):
        Lama("mine/lama:other.onnx")
