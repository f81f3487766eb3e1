"""Backbones of mmsegmentation's registry, adapted by config alone."""

from typing import Any

import pytest
import torch
from mmengine import ConfigDict
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

import lse_seg
from lse_core import SeparableWarp, scale, unscale
from lse_core.errors import ShapeError, UnknownNameError
from lse_core.random import random_log_slopes
from lse_dec.canonicalizers import Canonicalization
from lse_seg_plugin.tokens import AnnouncedTokens

MIT = {"type": "MixVisionTransformer", "embed_dims": 16, "num_layers": [1] * 4, "num_heads": [1, 2, 2, 4]}
SWIN = {"type": "SwinTransformer", "embed_dims": 24, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
SWIN |= {"strides": (4, 2), "out_indices": (0, 1)}
VIT = {"type": "VisionTransformer", "img_size": (48, 64), "patch_size": 8, "embed_dims": 32}
VIT |= {"num_layers": 2, "num_heads": 2, "out_indices": (0, 1)}
RESNET = {"type": "ResNetV1c", "depth": 18, "base_channels": 16, "stem_channels": 16}
TIMM = {"type": "TIMMBackbone", "model_name": "convnext_atto", "pretrained": False}
MSCAN = {"type": "MSCAN", "embed_dims": [16, 32, 40, 64], "depths": [1] * 4}
TWINS = {"type": "PCPVT", "embed_dims": [16, 32], "num_heads": [1, 2], "mlp_ratios": [2, 2], "depths": [1, 1]}
TWINS |= {"patch_sizes": [4, 2], "strides": [4, 2], "sr_ratios": [4, 2], "out_indices": (0, 1)}

# config, a latent site, channels of the last level
BACKBONES: dict[str, tuple[dict[str, Any], str, int]] = {
    "mit": (MIT, "layers.1.1.0", 64),
    "swin": (SWIN, "stages.1", 48),
    "vit": (VIT, "layers.1", 32),
    "resnet": (RESNET, "layer2", 128),
    "timm": (TIMM, "timm_model.stages_1", 320),
    "mscan": (MSCAN, "block2.0", 64),
    "twins": (TWINS, "layers.1.0", 32),
}


@pytest.fixture(autouse=True)
def scope() -> Any:
    init_default_scope("mmseg")
    yield
    DefaultScope._instance_dict.clear()


class Fixed(nn.Module):
    """A canonicalizer that always answers with one warp."""

    def __init__(self, channels: int, seed: int = 3) -> None:
        super().__init__()
        self.w = random_log_slopes(1, 4, 2.0, generator=torch.Generator().manual_seed(seed))

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        return Canonicalization(
            SeparableWarp.from_log_slopes(self.w.expand(len(features), -1, -1).to(features))
        )


def images(count: int = 2, height: int = 48, width: int = 64) -> Tensor:
    coarse = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic")


def samples(x: Tensor, classes: int = 3) -> list[SegDataSample]:
    found = []
    for _ in x:
        size = tuple(x.shape[-2:])
        sample = SegDataSample(metainfo={"img_shape": size, "ori_shape": size, "pad_shape": size})
        sample.gt_sem_seg = PixelData(data=torch.randint(0, classes, (1, *size)))
        found.append(sample)
    return found


@pytest.mark.parametrize("name", BACKBONES)
def test_registered_backbone_trains_and_predicts(name: str) -> None:
    bare, site, channels = BACKBONES[name]
    torch.manual_seed(0)
    model: Any = MODELS.build(
        {
            "type": "EncoderDecoder",
            "backbone": {"type": "CanonicalizedBackbone", "backbone": bare, "sites": ["image", site]},
            "decode_head": {
                "type": "FCNHead", "in_channels": channels, "in_index": -1, "channels": 8, "num_classes": 3,
                "num_convs": 1, "norm_cfg": {"type": "BN"},
            },
            "train_cfg": {},
            "test_cfg": ConfigDict(mode="whole"),
        }
    )  # fmt: skip
    model.init_weights()
    x = images()
    model.train()
    losses = model.loss(x, samples(x))
    losses["decode.loss_ce"].backward()
    assert list(model.backbone.adapted.sites) == ["image", site]
    for canonicalizer in model.backbone.adapted.canonicalizers.values():
        # before training only the layer that answers has a gradient
        assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in canonicalizer.parameters())
    model.eval()
    (first, second) = model.predict(x)
    assert first.pred_sem_seg.shape == (48, 64)
    assert bool(second.seg_logits.data.isfinite().all())


@pytest.mark.parametrize("name", BACKBONES)
def test_fresh_canonicalizers_change_nothing_and_bare_checkpoints_load(name: str) -> None:
    bare, site, _ = BACKBONES[name]
    base: Any = MODELS.build(bare).double()
    base.eval()  # which in mmsegmentation need not return the model
    model: Any = MODELS.build({"type": "CanonicalizedBackbone", "backbone": bare, "sites": ["image", site]})
    model.init_weights()
    model.double().eval()
    result = model.load_state_dict(base.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert all("canonicalizer" in key for key in result.missing_keys)
    x = images().double()
    with torch.no_grad():
        for level, expected in zip(model(x), base(x), strict=True):
            assert level.shape == expected.shape
            torch.testing.assert_close(level, expected, rtol=1e-9, atol=1e-9)
    # and what it saved itself
    model.load_state_dict(model.state_dict())


def test_levels_are_warped_back_each_at_its_own_resolution() -> None:
    base: Any = MODELS.build(MIT).double()
    base.eval()  # which in mmsegmentation need not return the model
    model: Any = MODELS.build(
        {"type": "CanonicalizedBackbone", "backbone": MIT, "sites": "image", "canonicalizer": Fixed}
    )
    model.load_state_dict(base.state_dict(), strict=False)
    model.double().eval()
    x = images().double()
    warp = Fixed(3)(x).warp
    with torch.no_grad():
        expected = [scale(level, warp) for level in base(unscale(x, warp))]
        found = model(x)
    assert [tuple(level.shape[2:]) for level in found] == [(12, 16), (6, 8), (3, 4), (2, 2)]
    for level, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(level, wanted)


def test_both_maps_of_a_swin_stage_are_warped_back() -> None:
    model: Any = MODELS.build(
        {"type": "CanonicalizedBackbone", "backbone": SWIN, "sites": "stages.0", "canonicalizer": Fixed}
    )
    model.eval()
    site = model.adapted.sites["stages.0"]
    with torch.no_grad():
        model(images())  # announces the grid
        tokens = torch.randn(2, 12 * 16, 24)
        warp = Fixed(24)(tokens).warp
        maps = tokens.view(2, 12, 16, 24)
        canonical = unscale(maps, warp, "nhwc")
        merged, _, kept, _ = site.stage(canonical.flatten(1, 2), (12, 16))
        found = site(tokens, (12, 16))
    expected = scale(merged.view(2, 6, 8, 48), warp, "nhwc").flatten(1, 2)
    torch.testing.assert_close(found[0], expected)
    assert found[1] == (6, 8)
    # the same shape as the input: the identity path of the stage is kept instead of being resampled
    change = scale(kept.view_as(maps) - canonical, warp, "nhwc")
    torch.testing.assert_close(found[2], (maps + change).flatten(1, 2))


def test_tokens_follow_the_size_of_the_images() -> None:
    model: Any = MODELS.build({"type": "CanonicalizedBackbone", "backbone": MIT, "sites": "layers.0.1.0"})
    model.eval()
    with torch.no_grad():
        for height, width in ((48, 64), (64, 48), (32, 96)):
            assert model(images(1, height, width))[0].shape[2:] == (height // 4, width // 4)


def test_tokens_that_fit_no_grid_are_named() -> None:
    layout = AnnouncedTokens()
    with pytest.raises(ShapeError, match="no image was seen yet"):
        layout.unpack(torch.zeros(1, 12, 4))
    layout.grids[12] = (3, 4)
    assert layout.unpack(torch.zeros(1, 13, 4))[1].shape == (1, 1, 4)  # type: ignore[union-attr]
    with pytest.raises(ShapeError, match=r"40 tokens fit none of the grids .* \(3 x 4\)"):
        layout.unpack(torch.zeros(1, 40, 4))


def test_unknown_stage_names_the_closest() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'stages\.1'"):
        MODELS.build({"type": "CanonicalizedBackbone", "backbone": SWIN, "sites": "stage.1"})


def test_initialisation_leaves_canonicalizers_alone() -> None:
    model: Any = MODELS.build({"type": "CanonicalizedBackbone", "backbone": VIT, "sites": "layers.0"})
    canonicalizer = model.adapted.canonicalizers["layers.0"]
    before = {name: tensor.clone() for name, tensor in canonicalizer.state_dict().items()}
    position = model.adapted.base.pos_embed
    assert not position.any()
    model.init_weights()
    assert position.any()
    assert isinstance(model, lse_seg.CanonicalizedBackbone)
    torch.testing.assert_close(canonicalizer.state_dict(), before, rtol=0, atol=0)
