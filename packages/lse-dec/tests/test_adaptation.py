"""adapt and unadapt on timm's ViT and ResNet: what changes, what must not, and what is refused."""

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import lse_dec
from lse_core import SeparableWarp, Tokens, scale, unscale
from lse_core.errors import DTypeError, LSEError, ShapeError, UnknownNameError
from lse_dec.canonicalizers import DEC, Canonicalization
from lse_dec.sites import CanonicalizedStage


def vit(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3, "num_classes": 7}
    return timm.create_model("vit_tiny_patch16_224", **{**options, **settings}).eval()


def resnet(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", **{"num_classes": 7, **settings}).eval()


MODELS: dict[str, Callable[..., nn.Module]] = {"vit": vit, "resnet": resnet}
LATENT = {"vit": "blocks.1", "resnet": "layer2"}


def images(batch: int = 2, size: int = 32) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def stir(adapted: lse_dec.AdaptedModel, size: float = 0.5) -> lse_dec.AdaptedModel:
    """Give fresh canonicalizers something to do."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for canonicalizer in adapted.canonicalizers.values():
            weight = canonicalizer.update.head.weight
            weight.copy_(8.0 * size * torch.randn(weight.shape, generator=generator))
    return adapted


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
@pytest.mark.parametrize("sites", [None, "image", "latent", ["latent", "image"]])
@pytest.mark.parametrize("name", MODELS)
def test_identity_at_init(name: str, sites: Any, mode: str) -> None:
    model = MODELS[name]()
    with torch.no_grad():
        base = model(images())
        if isinstance(sites, str | list):
            sites = (
                LATENT[name] if sites == "latent" else [LATENT[name], "image"] if sites != "image" else sites
            )
        adapted = lse_dec.adapt(model, sites, mode=mode)
        assert (adapted(images()) - base).abs().max() < 1e-5
        stir(adapted)
        assert (adapted(images()) - base).abs().max() > 1e-4  # and it is no dead end


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("order", [["image", "latent"], ["latent", "image"], ["latent"], ["image"]])
def test_unadapt_is_bit_for_bit(name: str, order: list[str]) -> None:
    model = MODELS[name]()
    names = [name for name, _ in model.named_modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    base = model(images())
    adapted = lse_dec.adapt(model, [LATENT[name] if site == "latent" else site for site in order])
    stir(adapted)(images()).sum().backward()
    back = lse_dec.unadapt(adapted)
    assert back is model
    after = back.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert [name for name, _ in back.named_modules()] == names
    assert not any(isinstance(m, CanonicalizedStage) for m in back.modules())
    assert torch.equal(back(images()), base)
    assert lse_dec.adapt(back).names  # and it can be adapted again


def test_default_sites_are_the_image_and_the_first_stage() -> None:
    assert list(lse_dec.adapt(vit()).sites) == ["image", "blocks.0"]
    assert list(lse_dec.adapt(resnet()).sites) == ["image", "layer1"]


@pytest.mark.parametrize("name", MODELS)
def test_canonicalizers_get_the_stages_own_features(name: str) -> None:
    model = MODELS[name]()
    stage, seen = model.get_submodule(LATENT[name]), []
    stage.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(images())
    adapted = lse_dec.adapt(model, LATENT[name])
    fed: list[Tensor] = []
    canonicalizer = adapted.canonicalizers[LATENT[name]]
    canonicalizer.register_forward_pre_hook(lambda _, args: fed.append(args[0]))
    adapted(images())
    spatial, _ = adapted.sites[LATENT[name]].where.layout.unpack(seen[0])
    assert torch.equal(fed[0], spatial)


class Fixed(nn.Module):
    """Always answers with one warp."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        g = SeparableWarp.random(1, 3, 3.0, generator=torch.Generator().manual_seed(9))
        return Canonicalization(g.broadcast(features.shape[0]))


def test_modes_are_equations_22_and_21() -> None:
    x, warp = images(size=160), Fixed(3)(images()).warp
    base = resnet(num_classes=0, global_pool="")
    plain = base(unscale(x, warp))
    invariant = lse_dec.adapt(base, "image", canonicalizer=Fixed)
    assert torch.allclose(invariant(x), plain, atol=1e-5)
    base = lse_dec.unadapt(invariant)
    equivariant = lse_dec.adapt(base, "image", canonicalizer=Fixed, mode="equivariant")
    dense = equivariant(x)
    assert torch.allclose(dense, scale(plain, warp), atol=1e-5)
    assert (dense - plain).abs().max() > 1e-2


def test_equivariant_latent_stage_keeps_the_identity_path() -> None:
    model = resnet(num_classes=0, global_pool="")
    adapted = lse_dec.adapt(model, "layer2", canonicalizer=Fixed, mode="equivariant")
    site = adapted.sites["layer2"]
    stage, site.stage = site.stage, nn.Identity()
    x = torch.randn(2, site.where.channels, 14, 14)
    assert torch.allclose(site(x), x, atol=1e-6)  # resampled twice it would be blurred
    blurred = scale(unscale(x, Fixed(1)(x).warp), Fixed(1)(x).warp)
    assert (blurred - x).abs().max() > 0.1
    site.stage = stage
    assert site(x).shape == (2, stage(x).shape[1], 7, 7)


def test_tokens_in_equivariant_mode() -> None:
    model = vit(num_classes=0, global_pool="")
    block, x = model.blocks[1], torch.randn(2, 17, 24)
    adapted = lse_dec.adapt(model, "blocks.1", canonicalizer=Fixed, mode="equivariant")
    warp, layout = Fixed(24)(x).warp, Tokens((4, 4), 1)
    canonical = unscale(x, warp, layout)
    out = block(canonical)
    found = adapted.sites["blocks.1"](x)
    assert torch.allclose(found[:, 0], out[:, 0], atol=1e-5)  # the class token has no place to go back to
    assert torch.allclose(found[:, 1:], (x + scale(out - canonical, warp, layout))[:, 1:], atol=1e-5)
    at_image = lse_dec.adapt(lse_dec.unadapt(adapted), "image", canonicalizer=Fixed, mode="equivariant")
    assert at_image(images()).shape == (2, 17, 24)  # tokens out: warped back as tokens, not as an image


def test_more_than_one_output_of_a_stage_passes_in_invariant_mode() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x.mean()

    model = vit()
    adapted = lse_dec.adapt(model, "blocks.1")
    adapted.sites["blocks.1"].stage = Two()
    assert isinstance(adapted.sites["blocks.1"](torch.randn(2, 17, 24)), tuple)


@pytest.mark.parametrize("name", MODELS)
def test_deepcopy_is_independent(name: str) -> None:
    adapted = stir(lse_dec.adapt(MODELS[name]()))
    copied = copy.deepcopy(adapted)
    assert torch.equal(copied(images()), adapted(images()))
    stir(copied, 1.5)
    assert not torch.equal(copied(images()), adapted(images()))
    assert {id(p) for p in copied.parameters()}.isdisjoint(id(p) for p in adapted.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_round_trip(name: str) -> None:
    adapted = stir(lse_dec.adapt(MODELS[name]()))
    file = io.BytesIO()
    torch.save(adapted.state_dict(), file)
    file.seek(0)
    other = lse_dec.adapt(MODELS[name]())
    assert not torch.equal(other(images()), adapted(images()))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(images()), adapted(images()))
    base = sum(v.numel() for v in MODELS[name]().state_dict().values())
    mine = sum(v.numel() for c in adapted.canonicalizers.values() for v in c.state_dict().values())
    assert sum(v.numel() for v in adapted.state_dict().values()) == base + mine
    assert mine > 0


def test_train_and_eval_reach_everything() -> None:
    adapted = lse_dec.adapt(resnet())
    for mode in (True, False):
        adapted.train(mode)
        assert all(m.training is mode for m in adapted.modules())


def test_what_the_caller_froze_stays_frozen() -> None:
    model = resnet().train()
    frozen = [m.eval() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    adapted = lse_dec.adapt(model)
    assert adapted.training
    assert all(c.training for c in adapted.canonicalizers.values())
    assert not any(m.training for m in frozen)


def test_device_and_dtype_follow_the_model() -> None:
    adapted = lse_dec.adapt(vit().to(torch.bfloat16))
    assert {p.dtype for p in adapted.parameters()} == {torch.bfloat16}
    assert adapted(images().to(torch.bfloat16)).dtype == torch.bfloat16
    assert {p.device.type for p in lse_dec.adapt(vit().to("meta")).parameters()} == {"meta"}


def test_parameter_groups_are_a_partition() -> None:
    adapted = lse_dec.adapt(vit())
    mine = {id(p) for p in adapted.canonicalizer_parameters()}
    rest = {id(p) for p in adapted.backbone_parameters()}
    assert mine
    assert mine.isdisjoint(rest)
    assert mine | rest == {id(p) for p in adapted.parameters()}


def test_attributes_of_the_model_and_the_stage_show_through() -> None:
    adapted = lse_dec.adapt(vit())
    assert adapted.num_classes == 7
    assert adapted.sites["blocks.0"].attn is adapted.base.blocks[0].stage.attn
    with pytest.raises(AttributeError):
        _ = adapted.no_such_thing


def test_gradients_reach_every_canonicalizer() -> None:
    adapted = stir(lse_dec.adapt(vit())).train()
    adapted(images()).square().sum().backward()
    for name, p in adapted.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
    assert all(
        float(p.grad.abs().max()) > 0 for p in adapted.canonicalizer_parameters() if p.grad is not None
    )


def test_nan_in_one_image_stays_there() -> None:
    adapted, x = stir(lse_dec.adapt(vit())), images(3)
    clean = adapted(x)
    x[1, 0, 3, 3] = math.nan
    assert torch.equal(adapted(x)[[0, 2]], clean[[0, 2]])


def test_options_reach_the_canonicalizer() -> None:
    dec = lse_dec.adapt(vit(), "image", segments=4, ratio=3.0, gradient="implicit", steps=3, rule="compose")
    made = dec.canonicalizers["image"]
    assert isinstance(made, DEC)
    assert (made.segments, made.ratio, made.steps) == (4, 3.0, 3)
    assert type(made.rule).__name__ == "Compose"
    assert type(made.gradient).__name__ == "Implicit"
    assert dec.settings == {
        "canonicalizer": "dec",
        "rule": "compose",
        "solver": "anderson",
        "steps": 3,
        "warp": "separable",
        "segments": 4,
        "ratio": 3.0,
        "gradient": "implicit",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "andersen"}, "unknown solver 'andersen'. Did you mean 'anderson'?"),
        ({"rule": "residul"}, "unknown update 'residul'. Did you mean 'residual'?"),
        ({"canonicalizer": "deq"}, "unknown canonicalizer 'deq'. Did you mean 'dec'?"),
        ({"warp": "seperable"}, "unknown warp 'seperable'. Did you mean 'separable'?"),
        ({"mode": "equivarient"}, "unknown mode 'equivarient'. Did you mean 'equivariant'?"),
        ({"sites": "blocks.9"}, "unknown stage 'blocks.9'. Did you mean 'blocks."),
        ({"sites": "layer1"}, "unknown stage 'layer1'."),
        ({"sites": ["image", "image"]}, "each once"),
        ({"sites": []}, "at least one stage"),
        ({"sites": "fc_norm"}, "takes no spatial map"),
        ({"sites": "head"}, "takes no spatial map"),
        ({"segmnts": 4}, "unknown setting of DEC 'segmnts'. Did you mean 'segments'?"),
        ({"ratio": 9.0}, "ratio must be above 1 and at most 4"),
        ({"steps": 0}, "steps 1"),
    ],
)
def test_bad_requests_leave_the_model_alone(options: dict[str, Any], words: str) -> None:
    model = vit()
    keys = list(model.state_dict())
    with pytest.raises(LSEError) as raised:
        lse_dec.adapt(model, **options)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(model.state_dict()) == keys


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="anderson, anderson-i, broyden, naive"):
        lse_dec.adapt(vit(), solver="newton")
    with pytest.raises(UnknownNameError, match="absolute, compose, residual"):
        lse_dec.adapt(vit(), rule="euler")


def test_adapted_twice_is_refused() -> None:
    with pytest.raises(LSEError, match="adapted already"):
        lse_dec.adapt(lse_dec.adapt(vit()))
    with pytest.raises(LSEError, match="unadapt takes what"):
        lse_dec.unadapt(vit())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.zeros(3, 32, 32), ShapeError, r"expected images \(batch, 3, height, width\)"),
        (torch.zeros(2, 1, 32, 32), ShapeError, "got a tensor of shape"),
        (torch.zeros(0, 3, 32, 32), ShapeError, "got a tensor of shape"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), DTypeError, "torch.uint8"),
    ],
)
def test_wrong_images_refused(x: Tensor, error: type[LSEError], words: str) -> None:
    with pytest.raises(error, match=words):
        lse_dec.adapt(vit())(x)
