"""The data of locally scaled objects: what is in it, that it is the same twice, how it is read."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import lse_seg  # noqa: F401  (puts the placeholder for mmcv's ops in place)
from lse_core.cli import main
from lse_core.errors import DataError, LSEError, OutputError
from lse_core.pictures import overlay
from lse_data.glyphs import load_glyphs
from lse_data.objects import FAMILIES, ObjectsConfig, class_names, palette, write_objects
from lse_data.objects.photographs import PLACES
from lse_data.objects.scene import draw, scene
from lse_data.objects.sprites import DISTANCES, sprite
from lse_data.objects.write import generate
from lse_seg.dataset import ScaledObjectsDataset

CONFIG = ObjectsConfig(train=6, val=2, test=3, size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "objects"
    write_objects(CONFIG, out)
    return out


def digest(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in root.rglob("*")
        if p.is_file()
    }


def test_equal_settings_write_equal_bytes_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    write_objects(CONFIG, tmp_path / "again")
    assert digest(tmp_path / "again") == digest(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again"]
    write_objects(ObjectsConfig(train=6, val=2, test=3, size=64, seed=1), tmp_path / "other")
    same = digest(tmp_path / "other").items() & digest(folder).items()
    assert [name for name, _ in same] == ["classes.txt"]


def test_folder_is_in_the_format_of_mmsegmentation(folder: Path) -> None:
    for split, count in (("train", 6), ("val", 2), ("test", 15)):
        images = {p.name for p in (folder / "img_dir" / split).iterdir()}
        assert images == {p.name for p in (folder / "ann_dir" / split).iterdir()}
        assert len(images) == count
    names = class_names()
    assert (folder / "classes.txt").read_text().splitlines() == list(names)
    for path in (folder / "ann_dir").rglob("*.png"):
        mask = Image.open(path)
        assert mask.mode == "P"
        assert mask.getpalette()[: 3 * len(names)] == [c for colour in palette(len(names)) for c in colour]  # type: ignore[index]
        labels = np.unique(np.array(mask))
        assert labels[0] == 0  # the background is always seen
        assert len(labels) == 3  # and both objects
        assert labels.max() < len(names)
        assert Image.open(str(path).replace("ann_dir", "img_dir")).size == mask.size == (64, 64)


def test_palette_has_no_colour_twice() -> None:
    colours = palette(len(class_names()))
    assert len({tuple(c) for c in colours}) == len(colours) == 19


def test_only_the_object_that_is_resized_changes() -> None:
    """Away from the resized object pictures of all factors are the same, and its area grows."""
    glyphs = load_glyphs("sklearn", "test")
    config = ObjectsConfig(train=0, test=8, size=96)
    for number in range(8):
        what = scene(config, "test", number, glyphs)
        assert what.resized is not None
        label = what.labels[what.resized]
        pictures, labels = zip(*(draw(what, config, v) for v in range(5)), strict=True)
        areas = [int((each == label).sum()) for each in labels]
        assert all(a < b for a, b in pairwise(areas)), areas
        largest = what.factors[-1][what.resized] * config.side * config.size / 2 + 2
        x, y = what.centres[what.resized].tolist()
        rows, cols = np.indices((96, 96)) + 0.5
        far = np.maximum(abs(cols - x), abs(rows - y)) > largest
        assert far.any()
        for picture, each in zip(pictures, labels, strict=True):
            assert np.array_equal(picture[far], pictures[0][far])
            assert np.array_equal(each[far], labels[0][far])


def test_larger_factor_covers() -> None:
    """Where both objects would show, the nearer one does: compared with each object drawn alone."""
    from dataclasses import replace

    glyphs = load_glyphs("sklearn", "train")
    config = ObjectsConfig(train=30, test=0, size=64)
    covered = 0
    for number in range(30):
        what = scene(config, "train", number, glyphs)
        both = draw(what, config, 0)[1]
        alone = []
        for i in range(2):
            sprites = what.sprites.clone()
            sprites[1 - i] = 0.0
            alone.append(draw(replace(what, sprites=sprites), config, 0)[1] > 0)
        near = int(what.factors[0][1] > what.factors[0][0])
        assert np.array_equal(both == what.labels[near], alone[near])
        assert np.array_equal(both == what.labels[1 - near], alone[1 - near] & ~alone[near])
        covered += bool((alone[0] & alone[1]).any())
    assert covered >= 5  # occlusion happens


def test_masks_fit_the_pictures() -> None:
    """Outside of an object's mask and its edge the picture is the background."""
    glyphs = load_glyphs("sklearn", "train")
    config = ObjectsConfig(train=10, test=0, size=96)
    for number in range(10):
        what = scene(config, "train", number, glyphs)
        picture, labels = draw(what, config, 0)
        ground = (what.background * 255).round().permute(1, 2, 0).numpy()
        near = np.zeros(labels.shape, dtype=bool)
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                near |= np.roll(labels > 0, (dy, dx), (0, 1))
        assert abs(picture[~near] - ground[~near]).max() <= 1
        inside = labels > 0
        assert abs(picture[inside] - ground[inside]).max(-1).mean() > 40


def test_training_and_test_share_no_place_and_no_digit() -> None:
    for one in PLACES["train"]:
        for other in PLACES["test"]:
            apart = one[3] <= other[1] or other[3] <= one[1] or one[4] <= other[2] or other[4] <= one[2]
            assert one[0] != other[0] or apart
    train, test = (set(load_glyphs("sklearn", split).index.tolist()) for split in ("train", "test"))
    assert not train & test


@pytest.mark.parametrize("name", class_names()[1:])
def test_every_sprite_is_an_object(name: str) -> None:
    rng = np.random.default_rng(0)
    import torch

    made = sprite(name, rng, load_glyphs("sklearn", "train"), torch.full((3,), 0.5, dtype=torch.float64))
    opacity = made[3]
    assert float(made.min()) >= 0.0
    assert bool((made[:3] <= opacity + 1e-12).all())  # colours go with their opacity
    assert 0.1 < float((opacity > 0.5).double().mean()) < 0.9


def test_shapes_have_their_areas() -> None:
    """Signed distances against areas known in closed form."""
    import math

    import torch

    t = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    y, x = torch.meshgrid(t, t, indexing="ij")
    star = 5 * 0.95 * 0.95 * 0.42 * math.sin(math.pi / 5)
    expected = {
        "disc": math.pi * 0.81,
        "square": 1.36**2,
        "triangle": 3 * math.sqrt(3) / 4 * 0.95**2,
        "star": star,
        "ring": math.pi * (0.9**2 - 0.42**2),
        "cross": 2 * 1.8 * 0.54 - 0.54**2,
    }
    assert expected.keys() == DISTANCES.keys() == set(FAMILIES["shapes"])
    for name, area in expected.items():
        assert float((DISTANCES[name](x, y) < 0).sum()) / 200**2 == pytest.approx(area, rel=0.01), name


def test_dataset_knows_factor_and_base_image(folder: Path) -> None:
    data = ScaledObjectsDataset(str(folder), "test", test_mode=True)
    assert data.metainfo["classes"] == class_names()
    assert data.metainfo["palette"] == palette(19)
    assert len(data) == 15
    infos = [data.get_data_info(i) for i in range(15)]
    assert [i["local_scale"] for i in infos] == [0.5, 0.7, 1.0, 1.4, 2.0] * 3
    assert [i["base_image"] for i in infos] == [f"{n:06d}" for n in range(3) for _ in range(5)]
    assert all(i["scaled_object"] in (0, 1) for i in infos)
    train = ScaledObjectsDataset(str(folder), "train")
    info = train.get_data_info(0)
    assert (info["local_scale"], info["base_image"], info["scaled_object"]) == (1.0, "000000", -1)


def test_dataset_reads_what_was_drawn(folder: Path) -> None:
    pipeline = [
        {"type": "LoadImageFromFile", "imdecode_backend": "pillow"},
        {"type": "mmseg.LoadAnnotations"},
    ]
    data = ScaledObjectsDataset(str(folder), "test", pipeline=pipeline, test_mode=True)
    drawn = {name: (picture, labels) for name, picture, labels in generate(CONFIG, "test")}
    for i in range(len(data)):
        item = data[i]
        picture, labels = drawn[Path(item["img_path"]).stem]
        assert np.array_equal(item["img"][..., ::-1], picture)
        assert np.array_equal(item["gt_seg_map"], labels)


def test_dataset_of_an_absent_or_unfinished_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lse data make-objects --out"):
        ScaledObjectsDataset(str(tmp_path))
    (tmp_path / "objects.json").write_text("{}")
    with pytest.raises(DataError, match=r"objects\.json is damaged; generate the data set again"):
        ScaledObjectsDataset(str(tmp_path))
    (tmp_path / "img_dir" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"there are no \.png images in"):
        ScaledObjectsDataset(str(tmp_path), metainfo={"classes": ("a", "b")})


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"train": -1}, "'train': input should be greater than or equal to 0; got -1"),
        ({"train": 0, "test": 0}, "one image must be asked for"),
        ({"size": 8}, "'size': input should be greater than or equal to 32; got 8"),
        ({"train_factors": (1.4, 0.7)}, "train_factors must be [low, high] with low <= high; got [1.4, 0.7]"),
        ({"test_factors": (1.0, 1.0)}, "'test_factors': each must be named once"),
        ({"test_factors": (3.0,)}, "at factor 3 a side of 0.36 leaves no room"),
        ({"families": ("shape",)}, "unknown family of objects 'shape'. Did you mean 'shapes'?"),
        ({"families": ()}, "'families': tuple should have at least 1 item"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], text: str) -> None:
    with pytest.raises(LSEError) as caught:
        ObjectsConfig(**{"train": 1, "test": 1, **settings})  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_what_is_there_is_replaced_only_when_told(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "objects"
    small = ObjectsConfig(train=1, test=0, size=32)
    write_objects(small, out)
    (out / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="is not empty"):
        write_objects(small, out)
    write_objects(ObjectsConfig(train=2, test=0, size=32), out, force=True)
    assert len(list((out / "img_dir" / "train").iterdir())) == 2
    assert (out / "mine.txt").read_text() == "kept"


def test_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_objects(CONFIG, tmp_path / "objects", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_command_writes_folder_and_preview(tmp_path: Path) -> None:
    out, picture = tmp_path / "objects", tmp_path / "seen" / "objects.png"
    arguments = "--train 3 --val 0 --test 1 --size 48 --families shapes --test-factors 0.5,2 --json"
    result = CliRunner().invoke(
        main, ["data", "make-objects", "--out", str(out), "--preview", str(picture), *arguments.split()]
    )
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["images"] == {"train": 3, "val": 0, "test": 2}
    assert said["classes"] == list(class_names(("shapes",)))
    assert {key: said[key] for key in ("classes", "palette", "config")} == {
        key: json.loads((out / "objects.json").read_text())[key] for key in ("classes", "palette", "config")
    }
    assert np.array(Image.open(picture)).std() > 20
    assert "make-objects" in CliRunner().invoke(main, ["data", "--help"]).stdout
    assert "make-objects" not in CliRunner().invoke(main, ["--help"]).stdout


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 2, "name a folder with --out, or a picture with --preview"),
        (["--preview", "x.jpg"], 1, "x.jpg is not the name of a PNG file"),
        (["--out", "x", "--test-factors", "a"], 1, "--test-factors takes numbers with commas between them"),
    ],
)
def test_command_says_what_is_wrong(arguments: list[str], status: int, text: str) -> None:
    result = CliRunner().invoke(main, ["data", "make-objects", *arguments])
    assert result.exit_code == status
    assert text in result.stderr


def test_overlay_outlines_objects_and_leaves_the_background() -> None:
    picture = np.full((8, 8, 3), 100, dtype=np.uint8)
    labels = np.zeros((8, 8), dtype=np.uint8)
    labels[2:6, 2:6] = 1
    labels[0, 0] = 255
    colours = np.array([[0, 0, 0], [200, 0, 0]], dtype=np.uint8)
    out = overlay(picture, labels, colours)
    assert out[7, 7].tolist() == [100, 100, 100]
    assert out[3, 3].tolist() == [150, 50, 50]
    assert out[2, 1].tolist() == out[5, 5].tolist() == [200, 0, 0]


def test_scaled_photographs_are_read_with_the_classes_of_their_objects(tmp_path: Path) -> None:
    from mmseg.datasets.transforms import LoadAnnotations

    from lse_data.scaling import ScalingConfig, scale_pictures

    rows, columns = np.mgrid[:60, :80]
    picture = np.stack([rows * 4, columns * 3, rows + columns], -1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "p.png")
    boxes = {"dog": [10, 15, 12, 16], "cat": [45, 20, 22, 20]}
    outlines = {name: [x, y, x + w, y, x + w, y + h, x, y + h] for name, (x, y, w, h) in boxes.items()}
    coco = {
        "images": [{"id": 1, "file_name": "p.png", "width": 80, "height": 60}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(boxes)],
        "annotations": [
            {"image_id": 1, "category_id": i, "segmentation": [outlines[name]], "bbox": box}
            for i, (name, box) in enumerate(boxes.items())
        ],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    config = ScalingConfig(
        factors=(0.7, 1.0),
        others="keep",
        options={"detector": {"where": str(tmp_path / "boxes.json")}},
    )
    scale_pictures([tmp_path / "p.png"], tmp_path / "set", config)
    data = ScaledObjectsDataset(str(tmp_path / "set"))
    assert data.metainfo["classes"] == ("background", "cat", "dog")
    assert [info["local_scale"] for info in data.load_data_list()] == [0.7, 1.0]
    small, whole = (LoadAnnotations()(data.get_data_info(i))["gt_seg_map"] for i in range(2))
    assert set(np.unique(whole)) == {0, 1, 2}
    assert whole[30, 55] == 1  # the cat, which is the largest
    assert whole[22, 15] == 2
    assert abs((small == 1).sum() / (whole == 1).sum() - 0.49) < 0.03
    assert (small == 2).sum() == (whole == 2).sum()
    (tmp_path / "set/manifest.json").write_text("{}")
    with pytest.raises(DataError, match="is damaged; make the data set again"):
        ScaledObjectsDataset(str(tmp_path / "set"))
