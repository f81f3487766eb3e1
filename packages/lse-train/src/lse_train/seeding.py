"""Random numbers as functions of seed, purpose and step, so that a resumed run has no state to restore."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["generator", "global_draws", "number"]

PURPOSES = ("weights", "order", "sample", "augment", "mix", "erase", "method", "equivariance", "model")


def number(seed: int, purpose: str, *place: int) -> int:
    """A seed in [0, 2**63) for one purpose at one place, independent of all others."""
    words = np.random.SeedSequence([seed, PURPOSES.index(purpose), *place]).generate_state(2)
    return int(words[0]) << 31 ^ int(words[1])


def generator(seed: int, purpose: str, *place: int) -> torch.Generator:
    """A generator on the CPU, so that a seed means the same on every device."""
    return torch.Generator().manual_seed(number(seed, purpose, *place))


@contextmanager
def global_draws(seed: int, purpose: str, *place: int) -> Iterator[None]:
    """Python's and NumPy's global generators, which timm's augmentation draws from, seeded in the block."""
    saved = random.getstate(), np.random.get_state()  # noqa: NPY002
    value = number(seed, purpose, *place)
    random.seed(value)
    np.random.seed(value % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])  # noqa: NPY002
