"""Backbones: what each family says of its stages, against what a dry run sees; and the generic route."""

import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_dec
from lse_core import NCHW, NHWC, SeparableWarp, Tokens, scale, unscale
from lse_core.errors import LSEError, ShapeError
from lse_core.layouts import Layout
from lse_core.plugins import hookimpl, registry
from lse_dec.backbones import Generic, Stage, backbone_of, find_stage
from lse_dec.backbones.probe import probe
from lse_dec.canonicalizers import Canonicalization

TOKENS = {"depth": 2, "embed_dim": 24, "num_heads": 3}
WINDOWS = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 1, 1, 1)}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViT", "vit_tiny_patch16_224", {**TOKENS, "img_size": 32, "patch_size": 8}),
    "deit": ("ViT", "deit_tiny_distilled_patch16_224", {**TOKENS, "img_size": 32, "patch_size": 8}),
    "dinov2": ("ViT", "vit_small_patch14_reg4_dinov2", {**TOKENS, "img_size": 42}),
    "beit": ("BEiT", "beit_base_patch16_224", {**TOKENS, "img_size": 32, "patch_size": 8}),
    "eva": ("BEiT", "eva02_tiny_patch14_224", {**TOKENS, "img_size": 42}),
    "swin": ("Swin", "swin_tiny_patch4_window7_224", WINDOWS),
    "swinv2": ("Swin", "swinv2_tiny_window8_256", WINDOWS),
    "resnet": ("ResNet", "resnet10t", {}),
    "convnext": ("ConvNeXt", "convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "pvt": ("PVT", "pvt_v2_b0", {"depths": (1, 1, 1, 1)}),
    "hrnet": ("HRNet", "hrnet_w18_small", {}),
}  # fmt: skip


def make(family: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    _, name, settings = FAMILIES[family]
    return timm.create_model(name, **{"num_classes": 5, **settings, **more}).eval()


def kinds(*layouts: Layout) -> list[Any]:
    return [
        (type(layout), getattr(layout, "grid", None), getattr(layout, "prefix", None)) for layout in layouts
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_says_what_a_dry_run_sees(family: str) -> None:
    model = make(family)
    backbone = backbone_of(model)
    assert type(backbone).__name__ == FAMILIES[family][0]
    seen, stages = probe(model), backbone.stages(model)
    assert len(stages) >= 2
    order = list(seen)
    assert [order.index(stage.name) for stage in stages] == sorted(
        order.index(stage.name) for stage in stages
    )
    for stage in stages:
        entry = seen[stage.name]
        assert entry.stage is not None, entry.why
        assert stage.channels == entry.stage.channels
        assert kinds(stage.layout, stage.output_layout) == kinds(
            entry.stage.layout, entry.stage.output_layout
        )
    assert backbone.image(model).channels == 3


@pytest.mark.parametrize("family", ["vit", "swin", "pvt", "convnext", "resnet", "beit"])
def test_dense_output_of_the_whole_model(family: str) -> None:
    """What the image's site warps back lies as the family says."""
    model = make(family, num_classes=0, global_pool="")
    backbone, out = backbone_of(model), probe(model)[""].output
    layout = backbone.image(model).output_layout
    spatial, _ = layout.unpack(torch.zeros(out))
    height, width = spatial.shape[1:3] if layout.channels_last else spatial.shape[2:4]
    assert height == width > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_image_channels(family: str) -> None:
    model = make(family, in_chans=1)
    assert backbone_of(model).image(model).channels == 1


def test_a_hybrid_vit_takes_images_and_no_features() -> None:
    model = timm.create_model("vit_tiny_r_s16_p8_224", img_size=64, depth=1).eval()
    adapted = lse_dec.adapt(model, ["image", "blocks.0"])
    assert adapted.sites["image"].where.channels == 3
    assert adapted(torch.randn(1, 3, 64, 64)).shape == (1, 1000)


class Fixed(nn.Module):
    """Always answers with one warp."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        g = SeparableWarp.random(1, 3, 3.0, generator=torch.Generator().manual_seed(9))
        return Canonicalization(g.broadcast(features.shape[0]))


# sizes ------------------------------------------------------------------------------------------


def test_non_square_tokens() -> None:
    model = make("vit", img_size=(24, 40))
    stage = find_stage(backbone_of(model), model, "blocks.1")
    assert stage.layout == Tokens((3, 5), 1)
    adapted = lse_dec.adapt(model, canonicalizer=Fixed, mode="equivariant")
    assert adapted(torch.randn(2, 3, 24, 40)).shape == (2, 5)


@pytest.mark.parametrize("family", ["convnext", "pvt", "resnet", "hrnet"])
def test_non_square_maps(family: str) -> None:
    adapted = lse_dec.adapt(make(family), canonicalizer=Fixed, mode="equivariant")
    assert adapted(torch.randn(1, 3, 64, 96)).shape == (1, 5)


def test_register_tokens_pass_untouched() -> None:
    model = make("dinov2")
    assert find_stage(backbone_of(model), model, "blocks.0").layout == Tokens((3, 3), 5)
    site = lse_dec.adapt(model, "blocks.0", canonicalizer=Fixed).sites["blocks.0"]
    site.stage = nn.Identity()
    x = torch.randn(2, 14, 24)
    assert torch.equal(site(x)[:, :5], x[:, :5])
    assert not torch.allclose(site(x)[:, 5:], x[:, 5:])


@pytest.mark.parametrize("padded", [False, True])
def test_dynamic_image_size(padded: bool) -> None:
    model = make("vit", dynamic_img_size=True, dynamic_img_pad=padded)
    adapted = lse_dec.adapt(model, ["blocks.0", "image"], canonicalizer=Fixed, mode="equivariant")
    for height, width in [(32, 32), (24, 48), (48, 16), *([(30, 41)] if padded else [])]:
        x = torch.randn(2, 3, height, width)
        assert adapted(x).shape == (2, 5)
        grid = adapted.sites["blocks.0"].where.layout.grid
        assert grid == (-(-height // 8), -(-width // 8))
    # at the size the other model is fixed to, both are one
    x = torch.randn(2, 3, 32, 32)
    fixed_adapted = lse_dec.adapt(make("vit"), ["blocks.0", "image"], canonicalizer=Fixed, mode="equivariant")
    assert torch.allclose(adapted(x), fixed_adapted(x), atol=1e-5)


def test_dynamic_size_leaves_no_hook_and_copies_stay_apart() -> None:
    model = make("vit", dynamic_img_size=True)
    adapted = lse_dec.adapt(model, "blocks.1", canonicalizer=Fixed)
    copied = copy.deepcopy(adapted)
    adapted(torch.randn(1, 3, 48, 32))
    copied(torch.randn(1, 3, 24, 24))
    assert adapted.sites["blocks.1"].where.layout.grid == (6, 4)
    assert copied.sites["blocks.1"].where.layout.grid == (3, 3)
    back = lse_dec.unadapt(adapted)
    assert not back.patch_embed.proj._forward_hooks
    assert len(copied.patch_embed.proj._forward_hooks) == 1


def test_swin_padding_follows_the_map() -> None:
    model = make("swin", strict_img_size=False)
    adapted = lse_dec.adapt(model, ["image", "layers.1"], canonicalizer=Fixed, mode="equivariant")
    assert adapted(torch.randn(1, 3, 72, 88)).shape == (1, 5)


# the generic route ------------------------------------------------------------------------------

TIMM: dict[str, tuple[str, dict[str, Any], str]] = {
    "efficientnet": ("efficientnet_b0", {}, "blocks.1"),
    "regnet": ("regnetx_002", {}, "s2"),
    "maxvit": ("maxvit_pico_rw_256", {"img_size": 64}, "stages.1"),
    "cait": ("cait_xxs24_224", {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 3}, "blocks.0"),
    "mixer": ("mixer_s32_224", {"img_size": 64}, "blocks.1"),
}


@pytest.mark.parametrize("family", TIMM)
def test_timm_models_nobody_thought_of(family: str) -> None:
    name, settings, expected = TIMM[family]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **settings).eval()
    backbone = backbone_of(model)
    assert isinstance(backbone, Generic)
    names = [stage.name for stage in backbone.stages(model)]
    assert expected in names
    assert set(names) <= {info["module"] for info in model.feature_info}
    x = torch.randn(2, *probe(model)[""].shape[1:])
    base = model(x)
    adapted = lse_dec.adapt(model, ["image", expected], mode="equivariant")
    assert (adapted(x) - base).abs().max() < 1e-5 * max(1.0, float(base.abs().max()))
    with torch.no_grad():
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=8.0)
    with lse_dec.observe(adapted) as found:
        adapted(x)
    for site in ("image", expected):  # random weights may hide it in the output
        assert (found[site].warp.x.values - found[site].warp.x.knots).abs().max() > 1e-3


class Plain(nn.Module):
    """A model of no library: a stem, two blocks, one of them used twice, a channels-last mixer, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, 2, 1), nn.BatchNorm2d(6))
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
        self.shared = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.mixer = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)
        self.unused = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.shared(self.body(self.stem(x))))
        x = self.mixer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


def test_any_module_by_a_dry_run() -> None:
    model = Plain()
    stages = {stage.name: stage for stage in backbone_of(model).stages(model)}
    assert list(stages) == ["body", "mixer"]
    assert (stages["body"].channels, stages["body"].layout) == (6, NCHW())
    assert (stages["mixer"].channels, stages["mixer"].layout) == (8, NHWC())
    adapted = lse_dec.adapt(model, mode="equivariant")
    assert list(adapted.sites) == ["image", "body"]
    assert adapted(torch.randn(2, 2, 20, 28)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("head", r"takes no spatial map but a tensor of shape \(8,\)"),
        ("stem", "takes the image itself"),
        ("shared", "is called 2 times"),
        ("unused", "is not called"),
    ],
)
def test_why_a_module_is_no_stage(name: str, words: str) -> None:
    with pytest.raises(ShapeError, match=words) as raised:
        lse_dec.adapt(Plain(), name)
    assert "stages that take a spatial map: image, body, mixer" in str(raised.value)


def test_modules_that_are_not_listed_can_be_named() -> None:
    model = Plain()
    assert find_stage(backbone_of(model), model, "mixer.1").layout == NHWC()
    resnet = make("resnet")
    assert find_stage(backbone_of(resnet), resnet, "layer2.0.conv2").channels == 128
    vit = make("vit")
    assert find_stage(backbone_of(vit), vit, "blocks.0.attn").layout == Tokens((4, 4), 1)


def test_the_dry_run_changes_nothing() -> None:
    model = Plain().train()
    model.body.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    probe(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert not model.body.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_that_cannot_be_run_says_so() -> None:
    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("only\nsounds, please")

    with pytest.raises(
        LSEError, match=r"could not be run on blank images \(224 x 224: only sounds, please\); .* img_size"
    ):
        lse_dec.adapt(Stubborn())


def test_without_latent_stages_the_image_remains() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x).mean((2, 3))

    assert list(lse_dec.adapt(Flat()).sites) == ["image"]


class Mine:
    """A stranger's backbone for ResNets."""

    def matches(self, model: nn.Module) -> bool:
        return type(model).__name__ == "ResNet"

    def image(self, model: nn.Module) -> Stage:
        return Stage("image", 3, NCHW())

    def stages(self, model: nn.Module) -> list[Stage]:
        return [Stage("layer4", 256, NCHW())]


def test_a_strangers_backbone_is_asked_first() -> None:
    class Plugin:
        @hookimpl
        def lse_backbones(self) -> dict[str, Any]:
            return {"zz-mine": Mine()}

    registry().register(Plugin(), "zz")
    try:
        assert list(lse_dec.adapt(make("resnet")).sites) == ["image", "layer4"]
    finally:
        registry().unregister("zz")
    assert list(lse_dec.adapt(make("resnet")).sites) == ["image", "layer1"]


# nested sites, containers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order", [["layer1", "layer1.0"], ["layer1.0", "layer1"], ["layer1.0", "image", "layer1"]]
)
def test_a_site_within_a_site(order: list[str]) -> None:
    model = make("resnet")
    keys, x = list(model.state_dict()), torch.randn(1, 3, 64, 64)
    base = model(x)
    adapted = lse_dec.adapt(model, order)
    assert list(adapted.sites) == order
    assert torch.allclose(adapted(x), base, atol=1e-5)
    with lse_dec.observe(adapted) as found:
        adapted(x)
    assert set(found) == set(order)
    with adapted.without_sites() as bare:
        assert list(bare.state_dict()) == keys
    assert list(adapted.sites) == order
    assert list(lse_dec.unadapt(adapted).state_dict()) == keys


def test_outputs_in_containers_are_warped_back() -> None:
    class Many(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"maps": [x, nn.functional.avg_pool2d(x, 2)], "pair": (x + 1, 7), "scores": x.mean((2, 3))}

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.many = nn.Conv2d(3, 4, 3, padding=1), Many()

        def forward(self, x: Tensor) -> Any:
            return self.many(self.first(x))

    model, x = Whole(), torch.randn(2, 3, 16, 16)
    features = model.first(x)
    warp = Fixed(4)(features).warp
    canonical = unscale(features, warp)
    plain = Many()(canonical)
    out = lse_dec.adapt(model, "many", canonicalizer=Fixed, mode="equivariant")(x)
    assert torch.allclose(out["maps"][0], features, atol=1e-6)
    assert torch.allclose(out["maps"][1], scale(plain["maps"][1], warp), atol=1e-6)
    assert torch.allclose(out["pair"][0], features + 1, atol=1e-6)
    assert out["pair"][1] == 7
    assert torch.equal(out["scores"], plain["scores"])
