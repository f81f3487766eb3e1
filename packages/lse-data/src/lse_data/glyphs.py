"""Single handwritten digits to build images from, split so that no glyph serves two splits."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import MNIST

from lse_core.errors import DataError, unknown_name
from lse_data.config import SPLITS

__all__ = ["Glyphs", "fetch_mnist", "load_glyphs", "mnist_glyphs", "sklearn_glyphs", "stratified_parts"]

SKLEARN_FRACTIONS = (0.7, 0.1, 0.2)
MNIST_FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)
MNIST_FRACTIONS = (5 / 6, 1 / 6)  # of MNIST's own 60,000 training glyphs


@dataclass(frozen=True, eq=False)
class Glyphs:
    """Square pictures of single digits, bright ink on black.

    Args:
        images: float32 (N, h, h) in [0, 1].
        labels: int64 (N,) in [0, 10).
        index: int64 (N,), the position of each glyph in its source; within one source it identifies the
            glyph across splits (for MNIST apart from test, whose positions count in its own file).
        origin: where they come from, for people.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    origin: str

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) != 3 or shape[1] != shape[2] or self.images.dtype != torch.float32:
            raise DataError(f"glyphs must be float32 (N, h, h), not {self.images.dtype} {shape}")
        for name, values in (("labels", self.labels), ("index", self.index)):
            if tuple(values.shape) != shape[:1] or values.dtype != torch.int64:
                raise DataError(f"glyph {name} must be int64 ({shape[0]},), not {tuple(values.shape)}")
        missing = sorted(set(range(10)) - set(self.labels.tolist()))
        if missing:
            raise DataError(f"{self.origin} has no glyph of digit {missing[0]}; numbers need all ten digits")
        # asked this way round, NaN fails too
        in_range = self.images.min() >= 0 and self.images.max() <= 1 and self.labels.unique().numel() == 10
        if not in_range:
            raise DataError(f"{self.origin}: pixels must lie in [0, 1] and labels in 0..9")

    def __len__(self) -> int:
        return len(self.labels)

    def one_of(self, digit: int, rng: np.random.Generator) -> Tensor:
        """A random one of the glyphs that show `digit`, float32 (h, h)."""
        mine = torch.nonzero(self.labels == digit)[:, 0]
        return self.images[mine[int(rng.integers(len(mine)))]]

    def fingerprint(self) -> str:
        """Give a SHA-256 over pixels, labels and indices: equal if and only if the glyphs are."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels, self.index):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def stratified_parts(labels: np.ndarray, fractions: tuple[float, ...], seed: int) -> list[np.ndarray]:
    """Divide positions at random into parts of the same class mixture.

    Args:
        labels: (N,) integers.
        fractions: the share of each part, summing to 1.
        seed: of the division; equal arguments give equal parts.

    Returns:
        One sorted array of positions per fraction; disjoint, together all of range(N). In every class each
        part is within one glyph of its share.
    """
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum(fractions) * len(members)).astype(int)
        for part, chunk in zip(parts, np.split(members, ends[:-1]), strict=True):
            part.append(chunk)
    return [np.sort(np.concatenate(part)) for part in parts]


def sklearn_glyphs(split: str, seed: int = 0) -> Glyphs:
    """Give one split of scikit-learn's 1,797 bundled scans of 8x8 (70% train, 10% val, 20% test per class).

    Raises:
        UnknownNameError: `split` is none of `SPLITS`.
    """
    _check_split(split)
    bunch = load_digits()
    index = stratified_parts(bunch.target, SKLEARN_FRACTIONS, seed)[SPLITS.index(split)]
    return Glyphs(
        torch.from_numpy(bunch.images[index] / 16).float(),
        torch.from_numpy(bunch.target[index].astype(np.int64)),
        torch.from_numpy(index.astype(np.int64)),
        f"scikit-learn digits, {split} split of seed {seed}",
    )


def mnist_glyphs(root: str | os.PathLike[str], split: str, seed: int = 0) -> Glyphs:
    """Give one split of an MNIST folder in torchvision's format (`root/MNIST/raw/*-ubyte`); never downloads.

    "test" is MNIST's own test set; "val" is a sixth of each class of MNIST's training set, drawn with
    `seed`, and "train" is the rest of it.

    Raises:
        UnknownNameError: `split` is none of `SPLITS`.
        DataError: the folder holds no readable MNIST.
    """
    _check_split(split)
    raw = Path(root) / "MNIST" / "raw"
    absent = [name for name in MNIST_FILES if not (raw / name).is_file()]
    if absent:
        raise DataError(
            f"no MNIST under {root}: {absent[0]} is missing from {raw}; "
            f"`lse data mnist --out {root}` fetches it, or put MNIST's four unpacked files there"
        )
    try:
        data = MNIST(root, train=split != "test", download=False)
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
        raise DataError(f"the MNIST files in {raw} are damaged; download them again ({error})") from error
    images, labels = data.data, data.targets
    if len(images) != len(labels):
        raise DataError(f"the MNIST files in {raw} hold {len(images)} images but {len(labels)} labels")
    index = np.arange(len(labels))
    if split != "test":
        index = stratified_parts(labels.numpy(), MNIST_FRACTIONS, seed)[SPLITS.index(split)]
    pick = torch.from_numpy(index)
    return Glyphs(
        images[pick].float() / 255, labels[pick], pick, f"MNIST in {root}, {split} split of seed {seed}"
    )


def fetch_mnist(root: str | os.PathLike[str]) -> Path:
    """Put MNIST into a folder by torchvision, which checks the files and takes packed ones that are there.

    Args:
        root: gets MNIST/raw with the four unpacked files, 66 MB with the packed ones; made if need be.

    Returns:
        The folder of the files.

    Raises:
        DataError: no network, no server that has the files, a damaged file, or no room.
    """
    raw = Path(root) / "MNIST" / "raw"
    if all((raw / name).is_file() for name in MNIST_FILES):
        return raw
    try:
        MNIST(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"MNIST could not be fetched into {raw}: {reason}; where there is no network, put the four files "
            f"{MNIST_FILES[0]}.gz, ... there, and give the same command again"
        ) from error
    return raw


def load_glyphs(source: str, split: str, seed: int = 0) -> Glyphs:
    """Give the glyphs of a `DigitsConfig`: "sklearn", or MNIST from the folder `source` names.

    Raises:
        DataError: `source` is neither "sklearn" nor a folder, or holds no MNIST.
    """
    if source == "sklearn":
        return sklearn_glyphs(split, seed)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(f'source {source!r} is neither "sklearn" nor a folder; give the root folder of MNIST')
    return mnist_glyphs(folder, split, seed)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
