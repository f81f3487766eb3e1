"""Tests that need a GPU: skipped without one, unless LSE_GPU_TESTS_ON=cpu asks for a rehearsal.

A rehearsal runs the same code on the CPU, all but what only CUDA has, so that it works where it meets a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_dec

HERE = Path(__file__).parent
DEVICE = os.environ.get("LSE_GPU_TESTS_ON", "cuda")
SMALL = {
    "vit_tiny_patch16_224": {"img_size": 64, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3},
    "swin_tiny_patch4_window7_224": {"img_size": 56, "depths": (1, 1), "num_heads": (2, 4), "embed_dim": 32},
    "resnet10t": {},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = DEVICE != "cpu" and not torch.cuda.is_available()
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)
            if missing:
                item.add_marker(pytest.mark.skip(reason="no GPU that torch can use"))


@pytest.fixture
def device() -> str:
    """Where to run what is compared with the CPU."""
    return DEVICE


@pytest.fixture
def cuda_only() -> None:
    """For what has no counterpart on a CPU."""
    if DEVICE == "cpu":
        pytest.skip("a rehearsal on a CPU, and this exists on CUDA only")


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """Float32 in full: cuDNN's convolutions use TF32 unless they are told not to."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def moving() -> Callable[..., lse_dec.AdaptedModel]:
    """Makes a small adapted model of a timm family, on the CPU, whose warps are not the identity."""

    def make(name: str = "vit_tiny_patch16_224", **options: object) -> lse_dec.AdaptedModel:
        torch.manual_seed(0)
        base = timm.create_model(name, num_classes=10, **SMALL[name])
        model = lse_dec.adapt(base, **{"steps": 3, **options}).eval()
        for canonicalizer in model.canonicalizers.values():
            nn.init.normal_(canonicalizer.update.head.weight, std=0.3)
        return model

    return make


@pytest.fixture
def pictures() -> Callable[..., Tensor]:
    """Makes n smooth pictures, (n, 3, side, side), normalised, on the CPU."""

    def make(n: int = 4, side: int = 64, seed: int = 0) -> Tensor:
        coarse = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        return 2.0 * nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)

    return make
