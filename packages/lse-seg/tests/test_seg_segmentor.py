"""The canonicalized segmentor: any head, auxiliary heads, windows, augmentation, and the right gradient."""

from typing import Any

import pytest
import torch
from mmengine import ConfigDict
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

import lse_seg  # noqa: F401  registers the segmentor
from lse_core import scale, unscale
from lse_core.errors import LSEError, UnknownNameError
from lse_core.random import random_log_slopes
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers import Canonicalization

SIZE = (48, 64)
VIT = {
    "type": "VisionTransformer", "img_size": SIZE, "patch_size": 8, "embed_dims": 32, "num_layers": 2,
    "num_heads": 2, "out_indices": (0, 1),
}  # fmt: skip
RESNET = {"type": "ResNetV1c", "depth": 18, "base_channels": 16, "stem_channels": 16}
MIT = {"type": "MixVisionTransformer", "embed_dims": 16, "num_layers": [1] * 4, "num_heads": [1, 2, 2, 4]}
COMMON = {"channels": 8, "num_classes": 3, "norm_cfg": {"type": "BN"}, "align_corners": False}
HEADS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "FCNHead": (RESNET, {"type": "FCNHead", "in_channels": 128, "in_index": 3, "num_convs": 1}),
    "UPerHead": (RESNET, {"type": "UPerHead", "in_channels": [32, 64, 128], "in_index": [1, 2, 3]}),
    "SegformerHead": (
        MIT,
        {"type": "SegformerHead", "in_channels": [16, 32, 32, 64], "in_index": [0, 1, 2, 3]},
    ),
    "DPTHead": (
        {**VIT, "num_layers": 4, "out_indices": (0, 1, 2, 3), "output_cls_token": True},
        {
            "type": "DPTHead", "in_channels": [32] * 4, "in_index": [0, 1, 2, 3], "embed_dims": 32,
            "patch_size": 8, "post_process_channels": [8, 16, 16, 32], "input_transform": "multiple_select",
        },
    ),
    # gives class scores beside its logits
    "EncHead": (RESNET, {"type": "EncHead", "in_channels": [64, 128], "in_index": (2, 3), "num_codes": 4}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def scope() -> Any:
    init_default_scope("mmseg")
    yield
    DefaultScope._instance_dict.clear()


class Learnt(nn.Module):
    """One warp for all maps, its log-slopes a parameter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.w = nn.Parameter(random_log_slopes(1, 4, 2.0, generator=generator))

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        return Canonicalization(SeparableWarp.from_log_slopes(self.w.expand(len(features), -1, -1)))


def config(name: str, kind: str = "CanonicalizedSegmentor", **more: Any) -> dict[str, Any]:
    backbone, head = HEADS[name]
    return {
        "type": kind,
        "backbone": backbone,
        "decode_head": {**COMMON, **head},
        "train_cfg": {},
        "test_cfg": ConfigDict(mode="whole"),
        **more,
    }


def pair(name: str, **more: Any) -> tuple[Any, Any]:
    """A segmentor and its canonicalized twin, with the same weights, in float64 and eval mode."""
    torch.manual_seed(0)
    base: Any = MODELS.build(config(name, "EncoderDecoder"))
    model: Any = MODELS.build(config(name, **more))
    result = model.load_state_dict(base.state_dict(), strict=False)
    assert result.unexpected_keys == []
    for m in (base, model):
        m.double()
        m.eval()
    return base, model


def images(count: int = 2) -> Tensor:
    coarse = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, SIZE, mode="bicubic").double()


def samples(x: Tensor) -> list[SegDataSample]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in x:
        size = tuple(x.shape[-2:])
        sample = SegDataSample(
            metainfo={"img_shape": size, "ori_shape": size, "pad_shape": size, "img_path": "x.png"}
        )
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, *size), generator=generator))
        found.append(sample)
    return found


def metas(x: Tensor) -> list[dict[str, Any]]:
    return [sample.metainfo for sample in samples(x)]


@pytest.mark.parametrize("name", HEADS)
def test_a_fresh_canonicalizer_changes_neither_loss_nor_prediction(name: str) -> None:
    base, model = pair(name)
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(model.encode_decode(x, metas(x)), base.encode_decode(x, metas(x)))
        first, second = model.loss(x, samples(x)), base.loss(x, samples(x))
    assert set(second) <= set(first)
    for key, value in second.items():
        torch.testing.assert_close(first[key], value)


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_put_back_in_place(name: str) -> None:
    base, model = pair(name, canonicalizer={"canonicalizer": Learnt})
    x = images()
    warp = Learnt(3).double()(x).warp
    with torch.no_grad():
        expected = scale(base.encode_decode(unscale(x, warp), metas(x)), warp)
        torch.testing.assert_close(model.encode_decode(x, metas(x)), expected)
        # mode "tensor": as the head gives them, at its own resolution
        raw = base._forward(unscale(x, warp))
        raw = raw[0] if isinstance(raw, tuple) else raw
        found = model._forward(x)
        torch.testing.assert_close(found[0] if isinstance(found, tuple) else found, scale(raw, warp))


@pytest.mark.parametrize("name", ["FCNHead", "DPTHead", "EncHead"])
def test_the_loss_is_that_of_the_prediction(name: str) -> None:
    _, model = pair(name, canonicalizer={"canonicalizer": Learnt})
    x = images()
    labels = torch.stack([sample.gt_sem_seg.data for sample in samples(x)])[:, 0]
    logits = model.encode_decode(x, metas(x))
    expected = nn.functional.cross_entropy(logits, labels)
    loss = model.loss(x, samples(x))["decode.loss_ce"]
    torch.testing.assert_close(loss, expected)


def test_the_warp_has_the_gradient_of_the_loss() -> None:
    _, model = pair("FCNHead", canonicalizer={"canonicalizer": Learnt})
    x = images()
    w = model.frame.canonicalizers["image"].w

    def loss() -> Tensor:
        return model.loss(x, samples(x))["decode.loss_ce"]

    (gradient,) = torch.autograd.grad(loss(), w)
    direction = torch.randn(w.shape, generator=torch.Generator().manual_seed(5), dtype=w.dtype)
    step = 1e-6
    with torch.no_grad():
        w += step * direction
        above = loss()
        w -= 2 * step * direction
        below = loss()
    torch.testing.assert_close((gradient * direction).sum(), (above - below) / (2 * step), rtol=1e-4, atol=0)
    assert gradient.abs().sum() > 1e-6


def test_auxiliary_heads_are_put_back_too() -> None:
    auxiliary = {**COMMON, "type": "FCNHead", "in_channels": 64, "in_index": 2, "num_convs": 1}
    torch.manual_seed(0)
    model: Any = MODELS.build(
        config("FCNHead", auxiliary_head=[auxiliary, auxiliary], canonicalizer={"canonicalizer": Learnt})
    )
    model.double()
    model.eval()
    x = images()
    losses = model.loss(x, samples(x))
    assert {"decode.loss_ce", "aux_0.loss_ce", "aux_1.loss_ce"} <= set(losses)
    warp = Learnt(3).double()(x).warp
    features = model.extract_feat(unscale(x, warp))
    logits = nn.functional.interpolate(model.auxiliary_head[1](features), SIZE, mode="bilinear")
    labels = torch.stack([sample.gt_sem_seg.data for sample in samples(x)])[:, 0]
    expected = nn.functional.cross_entropy(scale(logits, warp), labels)
    torch.testing.assert_close(losses["aux_1.loss_ce"], expected)


def test_every_sliding_window_has_a_canonical_form_of_its_own() -> None:
    base, model = pair("FCNHead", canonicalizer={"canonicalizer": Learnt})
    window = ConfigDict(mode="slide", crop_size=(32, 32), stride=(16, 16))
    model.test_cfg = base.test_cfg = window
    x = images(1)
    warp = Learnt(3).double()(x).warp
    total, count = torch.zeros(1, 3, *SIZE).double(), torch.zeros(1, 1, *SIZE)
    with torch.no_grad():
        for top in (0, 16):
            for left in (0, 16, 32):
                cut = (..., slice(top, top + 32), slice(left, left + 32))
                meta = [{"img_shape": torch.Size((32, 32))}]
                total[cut] += scale(base.encode_decode(unscale(x[cut], warp), meta), warp)
                count[cut] += 1
        found = model.predict(x, samples(x))[0].seg_logits.data
    torch.testing.assert_close(found, (total / count)[0])


def test_augmentation_at_test_time_averages_what_was_put_back() -> None:
    _, model = pair("FCNHead", canonicalizer={"canonicalizer": Learnt})
    augmented: Any = MODELS.build({"type": "SegTTAModel", "module": model})
    x = images(1)
    with torch.no_grad():  # no class wins everywhere
        logits = model.encode_decode(x, metas(x))
        model.decode_head.conv_seg.bias -= logits.mean((0, 2, 3))
    plain, flipped = samples(x)[0], samples(x)[0]
    flipped.set_metainfo({"flip": True, "flip_direction": "horizontal"})
    with torch.no_grad():
        expected = model.encode_decode(x, metas(x)).softmax(1)
        expected = expected + model.encode_decode(x.flip(-1), metas(x)).flip(-1).softmax(1)
        views = [model.predict(x, [plain])[0], model.predict(x.flip(-1), [flipped])[0]]
        (merged,) = augmented.merge_preds([views])
    labels = merged.pred_sem_seg.data
    assert len(labels.unique()) > 1
    assert torch.equal(labels.view(SIZE), expected[0].argmax(0))


def test_canonicalizers_of_image_and_backbone_learn_by_equation_5() -> None:
    torch.manual_seed(0)
    cfg = config("SegformerHead", canonicalizer_loss={"weight": 0.5, "steps": (2, 4)})
    cfg["backbone"] = {"type": "CanonicalizedBackbone", "backbone": MIT, "sites": "layers.1.1.0"}
    model: Any = MODELS.build(cfg)
    model.init_weights()
    x = images().float()
    losses = model.loss(x, samples(x))
    names = {"image", "backbone.layers.1.1.0"}
    assert set(model.sites) == names
    for name in names:
        # the identity, whatever the image, costs 1
        torch.testing.assert_close(losses[f"canonicalizer.{name}.loss"], torch.tensor(0.5))
        assert losses[f"canonicalizer.{name}.displacement"] < 1e-6
    (losses["canonicalizer.image.loss"] + losses["canonicalizer.backbone.layers.1.1.0.loss"]).backward()
    for site in model.sites.values():
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in site.canonicalizer.parameters())
    assert all(p.grad is None for p in model.backbone.adapted.backbone_parameters())
    total, _ = model.parse_losses(model.loss(x, samples(x)))
    assert total > 1.0


def test_a_centre_costs_answers_that_lean_one_way() -> None:
    found = []
    for centre in (0.0, 4.0):
        torch.manual_seed(0)
        model: Any = MODELS.build(config("FCNHead", canonicalizer_loss={"weight": 0.5, "centre": centre}))
        model.init_weights()
        (site,) = model.sites.values()
        torch.nn.init.normal_(site.canonicalizer.update.head.weight, std=0.5)
        x = images().float()
        torch.manual_seed(1)  # the same random warps
        found.append(float(model.loss(x, samples(x))["canonicalizer.image.loss"]))
    assert found[1] > found[0] + 1e-3


def test_without_a_canonicalizer_it_is_the_ordinary_segmentor() -> None:
    base, model = pair("FCNHead", canonicalizer=None)
    x = images()
    assert model.sites == {}
    assert set(model.state_dict()) == set(base.state_dict())
    torch.testing.assert_close(model.encode_decode(x, metas(x)), base.encode_decode(x, metas(x)))


def test_heads_without_logits_are_refused() -> None:
    from mmseg.models.decode_heads import PointHead

    from lse_seg.segmentor import _check

    head = PointHead(in_channels=[8], in_index=[0], channels=8, num_classes=3)
    with pytest.raises(LSEError, match=r"PointHead computes its loss .* CanonicalizedBackbone"):
        _check(head)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"canonicalizer": "decc"}, "unknown canonicalizer 'decc'. Did you mean 'dec'?"),
        ({"canonicalizer_loss": {"wieght": 1.0}}, "unknown setting of CanonicalizerLoss 'wieght'"),
    ],
)
def test_misspelt_settings_are_named(more: dict[str, Any], text: str) -> None:
    with pytest.raises(UnknownNameError, match=text.replace("?", r"\?")):
        MODELS.build(config("FCNHead", **more))


def test_loss_settings_out_of_range_are_told() -> None:
    with pytest.raises(LSEError, match="weight and centre must be at least 0"):
        MODELS.build(config("FCNHead", canonicalizer_loss={"centre": -1.0}))
    with pytest.raises(LSEError, match=r"steps \(least, most\) with 1 <= least <= most; got .*\(5, 2\)"):
        MODELS.build(config("FCNHead", canonicalizer_loss={"steps": (5, 2)}))
