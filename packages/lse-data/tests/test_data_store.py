"""Data sets on disk: what is read is what was written, and nothing half-written passes for whole."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import lse_data.store as store
from lse_core.errors import OutputError, UnknownNameError
from lse_data import (
    DataError,
    DigitsConfig,
    DigitsDataset,
    build_digits,
    generate_digits,
    load_digits_dataset,
    read_digits,
    write_digits_file,
    write_digits_folder,
)

CONFIG = DigitsConfig(5, resolution=24, variants=2, seed=3)


@pytest.fixture(scope="module")
def data() -> DigitsDataset:
    return generate_digits(CONFIG)


def assert_same(one: DigitsDataset, other: DigitsDataset) -> None:
    assert one.config == other.config
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_file_round_trip(tmp_path: Path, data: DigitsDataset):
    write_digits_file(data, tmp_path / "new" / "digits.safetensors")
    assert_same(read_digits(tmp_path / "new" / "digits.safetensors"), data)
    assert listing(tmp_path) == ["new", "new/digits.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_file_is_refused(tmp_path: Path, data: DigitsDataset, keep: int):
    path = tmp_path / "digits.safetensors"
    write_digits_file(data, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="damaged") as caught:
        read_digits(path)
    assert "\n" not in str(caught.value)


def test_foreign_and_outdated_files_are_refused(tmp_path: Path, data: DigitsDataset, monkeypatch):
    foreign = tmp_path / "weights.safetensors"
    save_file({"w": torch.zeros(2)}, foreign)
    with pytest.raises(DataError, match="some other safetensors file"):
        read_digits(foreign)
    outdated = tmp_path / "old.safetensors"
    write_digits_file(data, outdated)
    monkeypatch.setattr(store, "FORMAT_VERSION", 99)
    with pytest.raises(DataError, match="format version 1, not 99"):
        read_digits(outdated)
    with pytest.raises(DataError, match="no data set of digits at"):
        read_digits(tmp_path / "absent")


@pytest.mark.parametrize(
    "change", [{"count": 6}, {"resolution": 25}, {"unheard_of": 1}, {"scale": [3, 1]}, {"count": None}]
)
def test_file_that_contradicts_its_settings_is_refused(tmp_path: Path, data: DigitsDataset, change: dict):
    path = tmp_path / "digits.safetensors"
    config = json.dumps({**data.config.to_mapping(), **change})
    save_file(data.tensors(), path, {"format": "lse-digits", "version": "1", "config": config})
    with pytest.raises(DataError):
        read_digits(path)


def test_file_without_a_tensor_is_refused(tmp_path: Path, data: DigitsDataset):
    tensors = data.tensors()
    del tensors["boxes"]
    metadata = {"format": "lse-digits", "version": "1", "config": json.dumps(data.config.to_mapping())}
    save_file(tensors, tmp_path / "digits.safetensors", metadata)
    with pytest.raises(DataError, match="boxes"):
        read_digits(tmp_path / "digits.safetensors")


def test_folder_round_trip_with_pictures(tmp_path: Path, data: DigitsDataset):
    steps: list[int] = []
    told = write_digits_folder(data, tmp_path / "out", pictures=True, progress=steps.append)
    assert_same(read_digits(tmp_path / "out"), data)
    assert sum(steps) == len(data)
    assert json.loads((tmp_path / "out" / "digits.json").read_text()) == json.loads(json.dumps(told))
    assert DigitsConfig.from_mapping(told["config"]) == CONFIG
    for i, label in enumerate(data.labels.tolist()):
        picture = Image.open(tmp_path / "out" / "png" / f"{i:06d}_{label:03d}.png")
        np.testing.assert_array_equal(np.asarray(picture), data.images[i, 0].numpy())
    assert listing(tmp_path / "out")[:3] == ["digits.json", "digits.safetensors", "png"]
    assert len(listing(tmp_path)) == 4 + len(data)


def test_folder_that_is_not_empty_is_refused_unless_forced(tmp_path: Path, data: DigitsDataset):
    out = tmp_path / "out"
    write_digits_folder(data, out, pictures=True)
    (out / "notes.txt").write_text("mine")
    (out / "png" / "holiday.png").write_text("mine")
    with pytest.raises(OutputError, match=r"not empty.*--force"):
        write_digits_folder(data, out)
    other = generate_digits(DigitsConfig(2, resolution=24, seed=8))
    write_digits_folder(other, out, force=True)
    assert_same(read_digits(out), other)
    # the old pictures are gone, the user's files are not
    assert listing(out) == ["digits.json", "digits.safetensors", "notes.txt", "png", "png/holiday.png"]
    write_digits_folder(data, out, pictures=True, force=True)
    assert len(list((out / "png").iterdir())) == len(data) + 1


def test_interrupted_folder_never_looks_whole(tmp_path: Path, data: DigitsDataset):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_digits_folder(data, tmp_path / "out", pictures=True, progress=stop)
    assert listing(tmp_path) == []


def test_folder_interrupted_while_replacing_is_unfinished(tmp_path: Path, data: DigitsDataset, monkeypatch):
    out = tmp_path / "out"
    write_digits_folder(data, out)
    replace = store.os.replace

    def fail_at_the_end(source: Path, target: Path) -> None:
        # inside the temporary folder all goes well, the disk fills up while moving
        if Path(target).parent == out:
            raise OSError("disk is full")
        replace(source, target)

    monkeypatch.setattr(store.os, "replace", fail_at_the_end)
    with pytest.raises(OutputError, match="disk is full"):
        write_digits_folder(data, out, force=True)
    with pytest.raises(DataError, match="no finished data set"):
        read_digits(out)
    assert listing(tmp_path) == ["out", "out/digits.safetensors"]


def test_folder_name_taken_by_a_file(tmp_path: Path, data: DigitsDataset):
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        write_digits_folder(data, tmp_path / "out", force=True)
    with pytest.raises(OutputError, match="cannot write"):
        write_digits_folder(data, tmp_path / "out" / "below")


def test_cache_is_hit(tmp_path: Path, data: DigitsDataset, monkeypatch: pytest.MonkeyPatch):
    assert_same(load_digits_dataset(CONFIG, tmp_path), data)
    monkeypatch.setattr(store, "generate_digits", lambda *_: pytest.fail("not read from the cache"))
    assert_same(load_digits_dataset(CONFIG, tmp_path), data)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_cache_tells_settings_apart(tmp_path: Path):
    changes = ({}, {"count": 6}, {"seed": 4}, {"split_seed": 1}, {"split": "val"}, {"jitter": 0.1})
    for change in changes:
        settings = {**CONFIG.to_mapping(), **change}
        assert_same(build_digits(tmp_path, **settings), generate_digits(DigitsConfig.from_mapping(settings)))
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(changes)


def write_mnist(root: Path, ink: int) -> str:
    """Write an MNIST of blank pictures of brightness `ink`; returns its root."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        head = struct.pack(">4i", 0x803, 20, 28, 28), struct.pack(">2i", 0x801, 20)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head[0] + bytes([ink]) * (20 * 28 * 28))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head[1] + bytes(i % 10 for i in range(20)))
    return str(root)


def test_cache_goes_by_the_glyphs_and_not_by_their_folder(tmp_path: Path):
    first, copy, other = (write_mnist(tmp_path / str(i), ink) for i, ink in enumerate((200, 200, 90)))
    made = [
        build_digits(tmp_path / "cache", count=2, resolution=24, split="test", source=source)
        for source in (first, copy, other)
    ]
    assert [data.config.source for data in made] == [first, copy, other]
    assert torch.equal(made[0].images, made[1].images)
    assert [int(data.images.max()) for data in made] == [200, 200, 90]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_cache_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "here"))
    load_digits_dataset(CONFIG)
    assert len(list((tmp_path / "here" / "digits").iterdir())) == 1
    monkeypatch.delenv("LSE_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    load_digits_dataset(CONFIG)
    assert len(list((tmp_path / "home" / ".cache" / "lse" / "digits").iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "other settings"])
def test_damaged_cache_is_warned_about_and_made_anew(tmp_path: Path, data: DigitsDataset, damage: str):
    load_digits_dataset(CONFIG, tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    if damage == "foreign":
        save_file({"w": torch.zeros(2)}, path)
    elif damage == "other settings":
        write_digits_file(generate_digits(DigitsConfig(2, resolution=24)), path)
    else:
        path.write_bytes(path.read_bytes()[: 500 if damage == "truncated" else 0])
    with pytest.warns(RuntimeWarning, match="generated again") as caught:
        again = load_digits_dataset(CONFIG, tmp_path)
    assert_same(again, data)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(load_digits_dataset(CONFIG, tmp_path), data)


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path, data: DigitsDataset):
    # a file where the folder should be stops even a superuser
    (tmp_path / "cache").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="not cached") as caught:
        made = load_digits_dataset(CONFIG, tmp_path / "cache")
    assert_same(made, data)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


def test_build_refuses_unknown_settings(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="Did you mean 'scale'"):
        build_digits(tmp_path, count=3, scales=(1, 2))
