"""Glyphs: splits without leaks, and MNIST read from files in its own format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from lse_core.errors import UnknownNameError
from lse_data import SPLITS, DataError, DigitsConfig, Glyphs, generate_digits, load_glyphs, mnist_glyphs
from lse_data.glyphs import SKLEARN_FRACTIONS, sklearn_glyphs, stratified_parts

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
