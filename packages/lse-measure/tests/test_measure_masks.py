"""Where objects are, how they are cut out and resized, and what is counted when a mask does not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lse_core.errors import DataError
from lse_core.objects import scale_objects
from lse_measure.labels import read_labels

pytest.importorskip("cv2")

from lse_data.compositing import MARGIN, cut_out, mask_in_box
from lse_data.items import items_of
from lse_data.masks import find_marks, read_mask
from lse_measure.scenes import open_scene

VOC = """<annotation><size><width>{w}</width><height>{h}</height></size><object><name>disc</name><bndbox>
<xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object></annotation>"""


def disc(h: int = 60, w: int = 80, at: tuple[int, int] = (28, 40), radius: int = 12) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return np.asarray((y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2)


@pytest.fixture
def picture() -> np.ndarray:
    """A red disc on smooth green."""
    values = np.zeros((60, 80, 3), np.uint8)
    values[..., 1] = np.linspace(90, 160, 80).astype(np.uint8)
    values[disc()] = (200, 30, 40)
    return values


def test_grabcut_finds_a_disc_in_its_box(picture: np.ndarray) -> None:
    found = mask_in_box(picture, (22, 10, 58, 46))
    both, either = (found & disc()).sum(), (found | disc()).sum()
    assert both / either > 0.95
    assert np.array_equal(found, mask_in_box(picture, (22, 10, 58, 46)))  # its random clusters are seeded
    assert mask_in_box(picture, (-9, -9, 200, 200)).all()  # no background is left to tell apart
    for outside in ((90, 5, 120, 20), (10, 10, 10, 30), (5, -20, 30, 0)):
        with pytest.raises(DataError, match="lies outside of the picture"):
            mask_in_box(picture, outside)


def test_at_factor_one_objects_are_where_they_were(picture: np.ndarray) -> None:
    cut = cut_out(picture, disc())
    again = cut.resized(1.0, 1.0)
    assert np.array_equal(again[disc()], picture[disc()])
    near = disc(radius=12 + MARGIN + 2)
    assert np.array_equal(again[~near], picture[~near])
    assert (
        np.abs(again.astype(int) - picture)[~disc(radius=13)].max() <= 40
    )  # what is filled in is green again


@settings(max_examples=25, deadline=None)
@given(x=st.floats(0.4, 1.9), y=st.floats(0.4, 1.9))
def test_sizes_follow_the_factors(x: float, y: float) -> None:
    mask = np.zeros((60, 80), bool)
    mask[16:41, 28:53] = True
    seen = cut_out(np.full((60, 80, 3), 200, np.uint8), mask).silhouette(x, y)[..., 0] > 127
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert abs(len(columns) - 25 * x) <= 1
    assert abs(len(rows) - 25 * y) <= 1
    assert abs((columns[0] + columns[-1]) / 2 - 40) <= 1
    assert abs((rows[0] + rows[-1]) / 2 - 28) <= 1
    assert seen.sum() == len(rows) * len(columns)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.5])
def test_views_agree_with_scale_objects(picture: np.ndarray, factor: float) -> None:
    cut = cut_out(picture, disc())
    as_tensor = [torch.from_numpy(p).permute(2, 0, 1)[None].double() for p in (picture, cut.background)]
    there = scale_objects(as_tensor[0], torch.from_numpy(disc())[None], factor, background=as_tensor[1])
    ours = torch.from_numpy(cut.resized(factor, factor)).permute(2, 0, 1)[None].double()
    differ = (ours - there.image).abs().amax(1)[0]
    edge = disc(radius=round(12 * factor) + 2) & ~disc(radius=max(1, round(12 * factor) - 2))
    assert float(differ[~torch.from_numpy(edge)].max()) <= 3
    assert float(differ.mean()) < 3


def test_objects_at_an_edge_stay_there(picture: np.ndarray) -> None:
    mask = np.zeros((60, 80), bool)
    mask[40:, 30:50] = True
    cut = cut_out(picture, mask)
    seen = cut.silhouette(0.5, 0.5)[..., 0] > 127
    assert seen[-1].any()
    assert not seen[:49].any()
    assert (cut_out(picture, mask.copy()[::-1]).silhouette(0.5, 0.5)[0] > 127).any()
    with pytest.raises(DataError, match="mask is empty"):
        cut_out(picture, np.zeros((60, 80), bool))
    with pytest.raises(DataError, match="covers the whole picture"):
        cut_out(picture, np.ones((60, 80), bool))


def test_one_object_in_four_kinds_of_files(picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "p.png")
    polygon = [
        float(v)
        for a in np.linspace(0, 2 * np.pi, 60)
        for v in (40.5 + 12 * np.cos(a), 28.5 + 12 * np.sin(a))
    ]
    runs, last = [0], False
    for value in disc().T.flatten().tolist():
        if value != last:
            runs.append(0)
        runs[-1] += 1
        last = value
    coco: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "p.png", "width": 80, "height": 60}],
        "categories": [{"id": 3, "name": "disc"}],
        "annotations": [
            {"image_id": 1, "category_id": 3, "segmentation": [polygon], "bbox": [28, 16, 25, 25]},
            {"image_id": 1, "category_id": 3, "segmentation": {"counts": runs, "size": [60, 80]}, "bbox": []},
            {"image_id": 1, "category_id": 3, "segmentation": {"counts": "PYY", "size": [60, 80]},
             "bbox": [22, 10, 36, 36]},
            {"image_id": 1, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 1, 1]},
        ],
    }  # fmt: skip
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes/p.xml").write_text(VOC.format(23, 11, 58, 46, w=80, h=60))
    (tmp_path / "masks").mkdir()
    Image.fromarray(disc().astype(np.uint8) * 255).save(tmp_path / "masks/p.png")
    (item,) = items_of([tmp_path / "p.png"])
    found = {kind: open_scene(item, find_marks(tmp_path / kind)) for kind in ("coco.json", "boxes", "masks")}
    assert {kind: len(scene.objects) for kind, scene in found.items()} == {
        "coco.json": 3,
        "boxes": 1,
        "masks": 1,
    }
    for scene in found.values():
        assert scene.problems == []
        for _, _, cut in scene.objects:
            assert (
                abs(int(cut.alpha.sum()) - int(disc().sum())) < 60
            )  # polygons own the pixels of their edges
            assert all(abs(a - b) <= 1 for a, b in zip(cut.corner, (28, 16), strict=True))
    assert [name for _, name, _ in found["coco.json"].objects] == ["disc"] * 3


def test_mask_files_number_their_objects(tmp_path: Path) -> None:
    values = np.zeros((8, 8), np.uint8)
    values[:2], values[5:, :2], values[5:, 4:] = 1, 7, 255
    palette = Image.fromarray(values, mode="P")
    palette.putpalette([0, 0, 0] * 256)
    palette.save(tmp_path / "voc.png")
    assert [mark.mask is not None and int(mark.mask.sum()) for mark in read_mask(tmp_path / "voc.png")] == [
        16,
        6,
    ]
    Image.fromarray(values).save(tmp_path / "grey.png")
    (one,) = read_mask(tmp_path / "grey.png")
    assert one.mask is not None
    assert int(one.mask.sum()) == 12


def test_marks_that_do_not_fit_are_counted(picture: np.ndarray, tmp_path: Path) -> None:
    for name in ("other_size", "empty", "damaged", "outside", "other_box", "bomb", "bare"):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    Image.fromarray(np.full((30, 40), 255, np.uint8)).save(tmp_path / "other_size.mask.png")
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "empty.mask.png")
    (tmp_path / "damaged.mask.png").write_bytes(b"no picture")
    (tmp_path / "outside.xml").write_text(VOC.format(200, 200, 240, 240, w=80, h=60))
    (tmp_path / "other_box.xml").write_text(VOC.format(2, 2, 40, 40, w=800, h=600))
    (tmp_path / "bomb.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    items = {item.name: item for item in items_of([tmp_path])}
    assert set(items) == {
        f"{n}.png" for n in ("other_size", "empty", "damaged", "outside", "other_box", "bomb", "bare")
    }
    expected = {
        "other_size": ("bad_masks", "40 x 30 pixels, and this one has 80 x 60"),
        "empty": ("bad_masks", "the mask is empty"),
        "damaged": ("bad_masks", "cannot be read as a mask"),
        "outside": ("bad_boxes", "lies outside of the picture"),
        "other_box": ("bad_boxes", "800 x 600 pixels, and this one has 80 x 60"),
        "bomb": ("bad_masks", "defines entities"),
    }
    for name, (kind, words) in expected.items():
        scene = open_scene(items[f"{name}.png"], find_marks("beside"))
        assert scene.counts[kind] == 1, name
        assert words in scene.problems[0]
        assert scene.objects == []
    bare = open_scene(items["bare.png"], find_marks("beside"))
    assert bare.counts["without_objects"] == 1
    with pytest.raises(DataError, match="no such folder of masks"):
        find_marks(tmp_path / "nowhere")


def test_large_pictures_are_cut_out_at_a_smaller_size(tmp_path: Path) -> None:
    Image.new("RGB", (2000, 1000), "green").save(tmp_path / "p.png")
    (tmp_path / "p.xml").write_text(VOC.format(501, 251, 1000, 750, w=2000, h=1000))
    (item,) = items_of([tmp_path])
    scene = open_scene(item, find_marks("beside"))
    assert scene.small.shape == (640, 1280, 3)
    ((_, _, cut),) = scene.objects
    assert cut.corner[0] >= 320 - 1
    assert cut.corner[0] + cut.alpha.shape[1] <= 641


def test_labels_by_name_number_synset_and_order(tmp_path: Path) -> None:
    files = ["cat/1.jpg", "dog/2.jpg", "loose.jpg"]
    assert read_labels("folders", files, 3, ["dog", "x", "Cat"]) == {"cat/1.jpg": 2, "dog/2.jpg": 0}
    assert read_labels("folders", files, 2, None) == {"cat/1.jpg": 0, "dog/2.jpg": 1}
    assert read_labels("folders", ["7/a.jpg"], 9, None) == {"7/a.jpg": 7}
    with pytest.raises(DataError, match="2 labels, but the model tells 3 classes apart"):
        read_labels("folders", files, 3, ["dog", "x", "y"])
    (tmp_path / "l.csv").write_text(
        "\ufefffile,label,more\n1.jpg,dog,0\ndog/2.jpg,Cat,0\n\n", encoding="utf-8"
    )
    assert read_labels(tmp_path / "l.csv", files, 3, ["dog", "x", "Cat"]) == {"cat/1.jpg": 0, "dog/2.jpg": 2}
    pytest.importorskip("timm")
    assert read_labels("folders", ["n07920052/c.jpg"], 1000, None) == {"n07920052/c.jpg": 967}  # espresso
