"""Glyphs: splits without leaks, and MNIST read from files in its own format."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torchvision.datasets import MNIST

from lse_core.errors import UnknownNameError
from lse_data import SPLITS, DataError, DigitsConfig, Glyphs, generate_digits, load_glyphs, mnist_glyphs
from lse_data.commands.data import data
from lse_data.glyphs import SKLEARN_FRACTIONS, fetch_mnist, sklearn_glyphs, stratified_parts

SCANS = load_digits()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_sklearn_splits_are_disjoint_complete_and_stratified(seed: int):
    splits = [sklearn_glyphs(split, seed) for split in SPLITS]
    index = torch.cat([glyphs.index for glyphs in splits])
    assert sorted(index.tolist()) == list(range(1797))
    totals = np.bincount(SCANS.target)
    for glyphs, fraction in zip(splits, SKLEARN_FRACTIONS, strict=True):
        assert np.abs(np.bincount(glyphs.labels) - fraction * totals).max() <= 1


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    cuts=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    seed=st.integers(0, 1000),
)
def test_parts_partition_every_class(labels: list[int], cuts: tuple[int, int], seed: int):
    low, high = sorted(cuts)
    fractions = (low / 10, (high - low) / 10, (10 - high) / 10)
    parts = stratified_parts(np.array(labels), fractions, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, fraction in zip(parts, fractions, strict=True):
        for label in set(labels):
            share = sum(labels[i] == label for i in part)
            assert abs(share - fraction * labels.count(label)) <= 1


def test_sklearn_glyphs_are_the_scans():
    glyphs = sklearn_glyphs("val", seed=3)
    index = glyphs.index.numpy()
    np.testing.assert_array_equal(glyphs.images.numpy() * 16, SCANS.images[index])
    np.testing.assert_array_equal(glyphs.labels.numpy(), SCANS.target[index])
    assert glyphs.images.min() == 0
    assert glyphs.images.max() == 1


def test_the_seed_decides_the_split():
    first, same, other = sklearn_glyphs("test", 0), sklearn_glyphs("test", 0), sklearn_glyphs("test", 1)
    assert first.fingerprint() == same.fingerprint() != other.fingerprint()


def write_mnist(root: Path, train: int = 120, test: int = 40) -> Path:
    """Write MNIST's four files; pixel (0, 0) holds the position, pixel (0, 1) is 200 in the test set."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", train), ("t10k", test)):
        images = np.zeros((n, 28, 28), np.uint8)
        images[:, 0, 0] = np.arange(n)
        images[:, 0, 1] = 200 * (part == "t10k")
        labels = (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 0x803, n, 28, 28) + images.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, n) + labels.tobytes())
    return raw


def test_mnist_splits(tmp_path: Path):
    write_mnist(tmp_path)
    train, val, test = (mnist_glyphs(tmp_path, split, seed=5) for split in SPLITS)
    assert (len(train), len(val), len(test)) == (100, 20, 40)
    assert sorted([*train.index.tolist(), *val.index.tolist()]) == list(range(120))
    assert torch.bincount(val.labels).tolist() == [2] * 10
    for glyphs, mark in ((train, 0), (val, 0), (test, 200)):
        assert glyphs.images.shape[1:] == (28, 28)
        # every picture is the one its index names, with its own label
        torch.testing.assert_close(glyphs.images[:, 0, 0] * 255, glyphs.index.float())
        assert torch.equal(glyphs.labels, glyphs.index % 10)
        torch.testing.assert_close(glyphs.images[:, 0, 1], torch.full((len(glyphs),), mark / 255))


def test_digits_from_mnist(tmp_path: Path):
    write_mnist(tmp_path)
    data = generate_digits(DigitsConfig(20, source=str(tmp_path), split="test"))
    place = torch.tensor([100, 10, 1])
    assert torch.equal(((data.glyphs % 10) * place).sum(1), data.labels)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_missing_mnist_file_is_named(tmp_path: Path, name: str):
    (write_mnist(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=f"no MNIST under .*{name} is missing"):
        mnist_glyphs(tmp_path, "train")


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_damaged_mnist_file(tmp_path: Path, keep: int):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="damaged"):
        mnist_glyphs(tmp_path, "train")


def test_mnist_files_of_different_length(tmp_path: Path):
    raw = write_mnist(tmp_path)
    write_mnist(tmp_path / "other", train=60)
    name = "train-labels-idx1-ubyte"
    (raw / name).write_bytes((tmp_path / "other" / "MNIST" / "raw" / name).read_bytes())
    with pytest.raises(DataError, match="120 images but 60 labels"):
        mnist_glyphs(tmp_path, "train")


def test_a_split_without_some_digit_is_refused(tmp_path: Path):
    write_mnist(tmp_path, test=9)
    with pytest.raises(DataError, match="no glyph of digit 9"):
        mnist_glyphs(tmp_path, "test")


def test_unknown_source_and_split(tmp_path: Path):
    with pytest.raises(DataError, match="'skleran' is neither"):
        load_glyphs("skleran", "train")
    with pytest.raises(UnknownNameError, match="Did you mean 'val'"):
        load_glyphs("sklearn", "vall")
    with pytest.raises(UnknownNameError, match="Known: test, train, val"):
        mnist_glyphs(tmp_path, "x")


def good_glyphs() -> dict:
    return {
        "images": torch.zeros(10, 4, 4),
        "labels": torch.arange(10),
        "index": torch.arange(10),
        "origin": "test glyphs",
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": torch.zeros(10, 4, 5)}, r"\(N, h, h\)"),
        ({"images": torch.zeros(10, 4, 4).double()}, "float32"),
        ({"images": torch.full((10, 4, 4), 1.5)}, r"\[0, 1\]"),
        ({"images": torch.full((10, 4, 4), float("nan"))}, r"\[0, 1\]"),
        ({"labels": torch.arange(9)}, "labels must be"),
        ({"labels": torch.zeros(10, dtype=torch.int64)}, "no glyph of digit 1"),
        ({"index": torch.arange(10).int()}, "index must be"),
    ],
)
def test_glyphs_refuse_what_does_not_fit(change: dict, text: str):
    Glyphs(**good_glyphs())
    with pytest.raises(DataError, match=text):
        Glyphs(**{**good_glyphs(), **change})


def test_fingerprint_sees_every_part():
    seen = {Glyphs(**good_glyphs()).fingerprint()}
    ink = torch.zeros(10, 4, 4)
    ink[9, 3, 3] = 1 / 255
    for change in ({"images": ink}, {"labels": torch.arange(10).flip(0)}, {"index": torch.arange(1, 11)}):
        seen.add(Glyphs(**{**good_glyphs(), **change}).fingerprint())
    assert len(seen) == 4


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a web server on this machine offers, from which torchvision is told to fetch MNIST."""
    folder = tmp_path / "server"
    folder.mkdir()
    files = {}
    for path in sorted(write_mnist(tmp_path / "made").iterdir()):
        packed = gzip.compress(path.read_bytes(), mtime=0)
        (folder / f"{path.name}.gz").write_bytes(packed)
        files[f"{path.name}.gz"] = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder))) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{served.server_port}/"])
        monkeypatch.setattr(MNIST, "resources", list(files.items()))
        yield folder
        served.shutdown()


def test_mnist_is_fetched_once_and_checked(server: Path, tmp_path: Path):
    out = tmp_path / "out"
    done = CliRunner().invoke(data, ["mnist", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "100 train, 20 val, 40 test" in done.output
    for file in server.iterdir():
        file.unlink()
    again = CliRunner().invoke(data, ["mnist", "--out", str(out), "--json"])  # nothing is fetched
    assert json.loads(again.output) == {"folder": str(out), "train": 100, "val": 20, "test": 40}


def test_packed_files_that_are_there_are_taken(server: Path, tmp_path: Path):
    raw = tmp_path / "out" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in server.iterdir():
        file.rename(raw / file.name)
    assert len(mnist_glyphs(fetch_mnist(tmp_path / "out").parents[1], "test")) == 40


@pytest.mark.parametrize("damaged", [False, True])
def test_what_cannot_be_fetched_is_said_in_one_line(server: Path, tmp_path: Path, damaged: bool):
    file = server / "t10k-labels-idx1-ubyte.gz"
    if damaged:
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.unlink()
    with pytest.raises(
        DataError, match=r"could not be fetched into .*t10k-labels.*where there is no network"
    ):
        fetch_mnist(tmp_path / "out")
    assert not (tmp_path / "out/MNIST/raw/t10k-labels-idx1-ubyte").exists()
