"""Folders of pictures with and without local scales, and the scenes that the code draws itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from lse_core.errors import OutputError, UnknownNameError
from lse_core.pictures import PictureError
from lse_core.plugins import registry
from lse_data import DataError, ImageFolder, SceneConfig, write_scenes
from lse_data.commands.data import data
from lse_data.preview import preview


def picture(path: Path, value: int, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255 - value)).save(path, quality=95)


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Two classes with two pictures each, named as the authors name them."""
    for label, name in enumerate(("n01440764", "n01443537")):
        for number in (293, 7):
            for factor in (1.1, 0.7, 1):
                file = f"ILSVRC2012_val_{number:08d}_scale_{factor}.JPEG"
                picture(tmp_path / name / file, 100 * label + number % 50 + int(10 * factor))
    return tmp_path


def test_scaled_names_are_read_as_the_authors_write_them(imagenet: Path):
    found = ImageFolder(imagenet, resolution=16)
    assert found.classes == ("n01440764", "n01443537")
    assert found.levels == (0.7, 1.0, 1.1)
    assert found.config.variants == 3
    assert found.labels.tolist() == [0] * 6 + [1] * 6
    assert found.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert found.scales.tolist() == pytest.approx([1.0, 0.7, 1.1] * 4)
    assert found.pictures[1].path.name == "ILSVRC2012_val_00000007_scale_0.7.JPEG"
    image, label = found[4]
    assert image.shape == (3, 16, 16)
    assert label == 0
    # the file's own colour, 293 % 50 + 7 = 50, within what JPEG loses
    assert abs(float(image[0].mean()) * 255 - 50) < 3


def test_scales_and_limit_choose(imagenet: Path):
    found = ImageFolder(imagenet, resolution=16, scales=[1.1, 0.7], limit=1)
    assert found.scales.tolist() == pytest.approx([0.7, 1.1] * 2)
    assert found.groups.tolist() == [0, 0, 1, 1]
    assert [image.shape for image, _ in found] == [(3, 16, 16)] * 4


def test_classes_may_be_more_than_the_folders(imagenet: Path):
    names = ["n01440764", "n01440765", "n01443537"]
    assert ImageFolder(imagenet, resolution=16, classes=names).labels.tolist() == [0] * 6 + [2] * 6


def test_the_middle_of_the_shorter_side_is_kept(tmp_path: Path):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "x.png")
    image, _ = ImageFolder(tmp_path, resolution=32, scaled=False)[0]
    assert float(image.min()) == 1.0
    # a quarter of the shorter side is cut away all around: nothing of the border comes back
    image, _ = ImageFolder(tmp_path, resolution=16, scaled=False, crop=0.5)[0]
    assert float(image.min()) == 1.0


def test_what_does_not_fit_is_refused(imagenet: Path, tmp_path: Path):
    with pytest.raises(DataError, match="no folder"):
        ImageFolder(tmp_path / "absent")
    with pytest.raises(DataError, match=r"n01443537' that is none of the 1 classes"):
        ImageFolder(imagenet, classes=["n01440764"])
    with pytest.raises(DataError, match=r"scale_0\.7\.JPEG has no version at factor 1\.3"):
        ImageFolder(imagenet, scales=[0.7, 1.3])
    with pytest.raises(DataError, match="no picture at the factors 3"):
        ImageFolder(imagenet, scales=[3])
    (imagenet / "n01440764" / "ILSVRC2012_val_00000293_scale_0.7.JPEG").unlink()
    with pytest.raises(DataError, match=r"00000293.* has no version at factor 0\.7"):
        ImageFolder(imagenet)
    picture(imagenet / "n01440764" / "ILSVRC2012_val_00000293_scale_0.7.png", 3)
    picture(imagenet / "n01440764" / "ILSVRC2012_val_00000293_scale_0.7.JPEG", 3)
    with pytest.raises(DataError, match="another file of the same picture"):
        ImageFolder(imagenet)
    picture(imagenet / "n01440764" / "plain.png", 3)
    with pytest.raises(DataError, match=r"plain\.png does not contain its factor"):
        ImageFolder(imagenet)
    (imagenet / "n01443537" / "broken.jpg").write_bytes(b"not a picture")
    broken = ImageFolder(imagenet, scaled=False, resolution=16)
    with pytest.raises(PictureError, match=r"broken\.jpg cannot be read"):
        list(broken)


def test_plugins_refuse_unknown_settings(imagenet: Path):
    build = registry().get("dataset", "scaled_folder")
    assert len(build(root=imagenet, resolution=16)) == 12
    assert len(registry().get("dataset", "image_folder")(root=imagenet, resolution=16)) == 12
    with pytest.raises(UnknownNameError, match="'resolution'"):
        build(root=imagenet, resolutoin=16)
    with pytest.raises(DataError, match="root is missing"):
        build(resolution=16)


def test_scenes_are_the_same_files_for_the_same_settings(tmp_path: Path):
    config = SceneConfig(10, scales=(0.7, 1.0), resolution=32)
    for name, settings in (("a", config), ("b", config), ("c", SceneConfig(12, (0.7, 1.0), 32))):
        write_scenes(settings, tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.JPEG"))
    assert len(files) == 20
    for file in files:  # more scenes leave the first ones as they are
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()
    with pytest.raises(OutputError, match="not empty"):
        write_scenes(config, tmp_path / "a")


def test_in_a_scene_only_the_object_changes(tmp_path: Path):
    write_scenes(SceneConfig(10, scales=(0.7, 1.0, 1.3), resolution=64, size=0.4), tmp_path)
    found = ImageFolder(tmp_path, resolution=64)
    images = torch.stack([image for image, _ in found]).unflatten(0, (-1, 3))
    images = images[:, [1, 0, 2]]  # factor 1 comes first
    change = (images[:, :1] - images).abs().mean(2)
    border = torch.ones(64, 64, dtype=torch.bool)
    border[8:56, 8:56] = False
    assert float(change[:, :, border].max()) < 0.08  # JPEG
    # beyond where the small one was the large one has ink, and more of it than at factor 1
    moved = (change[:, 1:] > 0.15).flatten(2).sum(-1)
    assert bool((moved[:, 1] > moved[:, 0]).all())
    assert int(moved.min()) > 4


def test_scenes_refuse_objects_that_do_not_fit():
    with pytest.raises(DataError, match="does not fit"):
        SceneConfig(10, size=0.7)
    with pytest.raises(UnknownNameError, match="'train'"):
        SceneConfig(10, split="trian")


def test_the_scenes_plugin_reads_what_it_wrote_once(tmp_path: Path):
    build = registry().get("dataset", "scenes")
    settings = {"cache_dir": tmp_path, "count": 10, "resolution": 32, "split": "test"}
    first = build(**settings, scales=[1.0])
    assert first.levels == (1.0,)
    assert sorted(set(first.labels.tolist())) == list(range(10))
    made = sorted(tmp_path.rglob("*.JPEG"))
    again = build(**settings)
    assert len(again) == 70
    assert sorted(tmp_path.rglob("*.JPEG")) == made


def test_folder_preview_shows_the_pictures(imagenet: Path):
    found = ImageFolder(imagenet, resolution=32)
    grid = preview(found, 2, 3, start=3, gap=4, labels=False)
    assert grid.shape == (2 * 36 + 4, 3 * 36 + 4, 3)
    assert (grid[4:36, 4:36] == found.uint8(3)).all()
    assert (grid[40:72, 76:108] == found.uint8(8)).all()
    with_text = preview(found, 2, 3, start=3, gap=4)
    assert with_text.shape[0] > grid.shape[0]
    assert (with_text > 150).all(-1).sum() > 20  # white letters
    with pytest.raises(DataError, match="start must lie"):
        preview(found, 2, 3, start=12)


def test_commands_write_and_show_scenes(tmp_path: Path):
    def ok(*args: object) -> str:
        result = CliRunner().invoke(data, [str(arg) for arg in args])
        assert result.exit_code == 0, result.output
        return result.stdout

    told = ok("scenes", "--out", tmp_path / "s", "--count", 10, "--scales", "0.7,1.3",
              "--resolution", 32, "--json")  # fmt: skip
    assert json.loads(told) == {"folder": str(tmp_path / "s"), "images": 20, "scales": [0.7, 1.3]}
    ok("preview", "--out", tmp_path / "s.png", "--from", tmp_path / "s", "--rows", 2, "--cols", 2,
       "--resolution", 32, "--no-labels")  # fmt: skip
    assert Image.open(tmp_path / "s.png").size == (70, 70)
    result = CliRunner().invoke(data, ["scenes", "--out", str(tmp_path / "t"), "--scales", "0.7;1"])
    assert isinstance(result.exception, DataError)
