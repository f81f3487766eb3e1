"""The losses of InvL (Eq. 25) and AugL (Eq. 23) against their formulas, on a small model."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from lse_core import scale
from lse_core.errors import UnknownNameError
from lse_train import Batch
from lse_train.config import Method
from lse_train.methods import AugL, InvL, make_method


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "resnet10t", in_chans=1, num_classes=5, channels=(4, 4, 8, 8), stem_width=4
    ).eval()


@pytest.fixture
def batch() -> Batch:
    g = torch.Generator().manual_seed(1)
    plain = torch.randn(6, 1, 32, 32, generator=g)
    labels = torch.randint(5, (6,), generator=g)
    # the second half of a step of 12 images, already augmented
    return Batch(0.5 * plain, plain, labels, labels, torch.arange(6, 12), 12, 0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_invl_is_the_squared_distance_of_two_views(model: nn.Module, batch: Batch):
    found = InvL(weight=3.0, ratio=2.5).loss(model, batch, generator())
    warp = batch.random_warp(generator(), 2.5, 4)
    first, second = model(batch.images), model(scale(batch.plain, warp))
    distance = (first.softmax(1) - second.softmax(1)).square().sum(1).mean()
    assert float(distance) > 1e-6
    torch.testing.assert_close(found["invariance"], 3.0 * distance)
    task = 0.5 * (F.cross_entropy(first, batch.labels) + F.cross_entropy(second, batch.labels))
    torch.testing.assert_close(found["task"], task)


def test_invl_warps_mixed_images_themselves(model: nn.Module, batch: Batch):
    mixed = torch.full((6, 5), 0.2)
    soft = Batch(batch.images, batch.plain, batch.labels, mixed, batch.rows, batch.total, 0)
    found = InvL().loss(model, soft, generator())
    warp = soft.random_warp(generator(), 2.0, 4)
    second = model(scale(soft.images, warp))
    distance = (model(soft.images).softmax(1) - second.softmax(1)).square().sum(1).mean()
    torch.testing.assert_close(found["invariance"], distance)


def test_augl_is_the_relative_error_of_the_last_map(model: nn.Module, batch: Batch):
    found = AugL(weight=2.0).loss(model, batch, generator())
    warp = batch.random_warp(generator(), 2.0, 4)
    plain = model.forward_features(batch.images)
    moved = model.forward_features(scale(batch.images, warp))
    error = (scale(plain, warp) - moved).square().mean() / plain.square().mean()
    torch.testing.assert_close(found["equivariance"], 2.0 * error)
    assert float(error.detach()) > 0


def test_augl_reads_tokens_by_their_layout(batch: Batch):
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        in_chans=1,
        num_classes=5,
        embed_dim=32,
        depth=2,
        num_heads=2,
    ).eval()
    seen = []
    vit.blocks[1].register_forward_hook(lambda _, args, out: seen.append(out.detach()))
    found = AugL().loss(vit, batch, generator())
    warp = batch.random_warp(generator(), 2.0, 4)
    tokens = seen[0][:, 1:].transpose(1, 2).unflatten(2, (4, 4))  # without the class token
    plain, moved = tokens.chunk(2)
    difference = (scale(plain, warp) - moved).square().sum((1, 2, 3))
    prefix = (seen[0][:6, 0] - seen[0][6:, 0]).square().sum(1)
    size = seen[0][:6].square().mean()
    expected = ((difference + prefix) / (17 * 32)).mean() / size
    torch.testing.assert_close(found["equivariance"], expected, rtol=1e-4, atol=1e-6)


def test_names_and_options_are_checked():
    assert make_method(Method(name="invl", options={"weight": 0.5})) == InvL(weight=0.5)
    with pytest.raises(UnknownNameError, match="'invl'"):
        make_method(Method(name="invll"))
    with pytest.raises(UnknownNameError, match="'weight'"):
        make_method(Method(name="augl", options={"wieght": 1.0}))
