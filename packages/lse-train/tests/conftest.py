"""A small training run, which several files begin from."""

from typing import Any

import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def settings(cache: str) -> dict[str, Any]:
    """A run of half a second: 7 steps an epoch, so that stops fall within one."""
    return {
        "model": {
            "name": "resnet10t",
            "kwargs": {"in_chans": 1, "num_classes": 1000, "channels": [8, 8, 8, 8], "stem_width": 8},
        },
        "data": {
            "name": "digits",
            "options": {"resolution": 32, "scale": [0.6, 1.6], "cache_dir": cache},
            "train": {"count": 56},
            "tests": {"far": {"count": 8, "split": "test", "variants": 3, "reference": True}},
            "mean": 0.1,
            "std": 0.3,
        },
        "adapt": {
            "sites": ["image"],
            "rule": "compose",
            "segments": 4,
            "projection": 4,
            "widths": [8],
        },
        "augment": {"warp_ratio": 2.0},
        "steps": 12,
        "batch_size": 8,
        "log_every": 2,
        "checkpoint_every": 5,
        "device": "cpu",
    }


@pytest.fixture
def vit() -> dict[str, Any]:
    """A transformer in place of the run's model, with stochastic depth."""
    return {
        "name": "vit_tiny_patch16_224",
        "kwargs": {
            "in_chans": 1, "num_classes": 1000, "img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2,
            "num_heads": 2, "drop_path_rate": 0.2,
        },
    }  # fmt: skip
