"""transformers' models: grids that follow the image, and what they give beside scores."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import lse_dec
from lse_core import SeparableWarp
from lse_dec.backbones import backbone_of
from lse_dec.canonicalizers import Canonicalization

FIVE = int(transformers.__version__.split(".")[0]) >= 5
"""Release 5 named some modules anew; both are known."""
LAYERS = "layers" if FIVE else "encoder.layer"

TOKENS = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_labels": 5,
}
WINDOWS = {
    "image_size": 64,
    "embed_dim": 12,
    "depths": [1, 2, 1],
    "num_heads": [2, 4, 4],
    "window_size": 4,
    "num_labels": 5,
}
SEGFORMER = {
    "depths": [1, 2, 1, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 3, 4],
    "decoder_hidden_size": 16,
    "num_labels": 5,
}


def hugging(model: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    """A model of transformers, random weights."""
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**settings))


class Case(NamedTuple):
    """A model, one of its stages, the grid of tokens there, and the size of the images."""

    make: Callable[[], nn.Module]
    stage: str
    grid: tuple[int, int] = (4, 4)
    size: int = 32


SWIN = f"{'swin.' if FIVE else ''}encoder.layers.1"
SEG = "segformer.stages.1.blocks.1" if FIVE else "segformer.encoder.block.1.1"
MLP = {**TOKENS, "mlp_ratio": 2}
CASES = {
    "vit": Case(
        hugging("ViTForImageClassification", "ViTConfig", **TOKENS, intermediate_size=48), f"vit.{LAYERS}.1"
    ),
    "vit-bare": Case(hugging("ViTModel", "ViTConfig", **TOKENS, intermediate_size=48), f"{LAYERS}.0"),
    "dinov2": Case(hugging("Dinov2ForImageClassification", "Dinov2Config", **MLP), "dinov2.encoder.layer.1"),
    "dinov2-registers": Case(
        hugging("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", **MLP, num_register_tokens=3),
        "encoder.layer.0",
    ),
    "dinov2-backbone": Case(
        hugging("Dinov2Backbone", "Dinov2Config", **MLP, out_features=["stage1", "stage2"]), "encoder.layer.0"
    ),
    "swin": Case(
        hugging("SwinForImageClassification", "SwinConfig", **WINDOWS), "swin.encoder.layers.1", (8, 8), 64
    ),
    "swin-backbone": Case(
        hugging("SwinBackbone", "SwinConfig", **WINDOWS, out_features=["stage2", "stage3"]), SWIN, (8, 8), 64
    ),
    "segformer-dense": Case(
        hugging("SegformerForSemanticSegmentation", "SegformerConfig", **SEGFORMER), SEG, (8, 8), 64
    ),
}


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return CASES[name].make().eval()


def images(size: int = 32, width: int | None = None, seed: int = 1) -> Tensor:
    return torch.randn(2, 3, size, width or size, generator=torch.Generator().manual_seed(seed))


def tensors(out: Any) -> dict[str, Tensor]:
    """What a model gave, flat."""
    if isinstance(out, Tensor):
        return {"": out}
    items = out.items() if hasattr(out, "items") else enumerate(out)
    return {f"{k}.{n}": v for k, part in items for n, v in tensors(part).items()}


def warp() -> SeparableWarp:
    return SeparableWarp.random(2, 3, 3.0, generator=torch.Generator().manual_seed(9))


class Fixed(nn.Module):
    """Always answers with one warp."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        assert features.shape[0] == 2
        return Canonicalization(warp())


def sampled(maps: Tensor, forward: bool) -> Tensor:
    """S of a map (B, C, H, W), or S^-1 unless `forward`, by torch's own sampler; knows nothing of layouts."""
    w = ~warp() if forward else warp()
    h, v = (torch.linspace(0.0, 1.0, n) for n in (maps.shape[3], maps.shape[2]))
    x = w.x(h)[:, None, :].expand(2, len(v), len(h))
    y = w.y(v)[:, :, None].expand(2, len(v), len(h))
    return F.grid_sample(maps, 2 * torch.stack([x, y], -1) - 1, align_corners=True, padding_mode="border")


def first(found: Any) -> Tensor:
    return found if isinstance(found, Tensor) else found[0]


def grid_of(adapted: lse_dec.AdaptedModel) -> tuple[int, int]:
    (site,) = adapted.sites.values()
    return site.where.layout.grid


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
def test_grids_follow_the_image(mode: str) -> None:
    options: dict[str, Any] = {"canonicalizer": Fixed, "mode": mode}
    with torch.no_grad():
        vit = lse_dec.adapt(make("vit"), f"vit.{LAYERS}.0", **options)
        assert vit(images(48, 24), interpolate_pos_encoding=True).logits.shape == (2, 5)
        assert grid_of(vit) == (6, 3)
        dino = lse_dec.adapt(make("dinov2-registers"), "encoder.layer.0", **options)
        assert dino(images(32, 64)).pooler_output.shape == (2, 24)
        assert grid_of(dino) == (4, 8)
        swin = lse_dec.adapt(make("swin"), "swin.encoder.layers.1", **options)
        out = swin(images(90, 70), output_hidden_states=True)  # 23 x 18 patches, 12 x 9, 6 x 5
        assert [state.shape[1] for state in out.hidden_states] == [23 * 18, 12 * 9, 6 * 5, 6 * 5]
        assert grid_of(swin) == (12, 9)
        seg = lse_dec.adapt(make("segformer-dense"), SEG, **options)
        assert seg(images(64, 96)).logits.shape == (2, 5, 16, 24)
        assert grid_of(seg) == (8, 12)


@pytest.mark.parametrize("name", ["dinov2-backbone", "swin-backbone"])
def test_feature_maps_go_back(name: str) -> None:
    """Equivariant, at the image and at a stage: the maps that a detector or a decoder would get."""
    case, x = CASES[name], images(CASES[name].size)
    with torch.no_grad():
        plain = make(name)(sampled(x, forward=False)).feature_maps
        found = lse_dec.adapt(make(name), "image", canonicalizer=Fixed, mode="equivariant")(x).feature_maps
        for ours, theirs in zip(found, plain, strict=True):
            torch.testing.assert_close(ours, sampled(theirs, forward=True), atol=1e-4, rtol=1e-4)
        adapted = lse_dec.adapt(make(name), case.stage, canonicalizer=Fixed, mode="equivariant")
        outer: list[Tensor] = []
        adapted.sites[case.stage].register_forward_hook(
            lambda _, args, out: outer.append(out if name.startswith("dinov2") else out[1])
        )
        maps = adapted(x).feature_maps
        # the first map is what the site gave, normalised
        (given,) = outer
        if name == "dinov2-backbone":
            expected = adapted.layernorm(given)[:, 1:]
        else:
            tokens = given if given.ndim == 3 else given.flatten(2).transpose(1, 2)
            expected = adapted.hidden_states_norms["stage2"](tokens)
    expected = expected.transpose(1, 2).unflatten(2, case.grid)
    torch.testing.assert_close(maps[0], expected, atol=1e-5, rtol=1e-4)


def test_what_is_no_picture_is_left_alone_and_what_is_goes_back() -> None:
    """Equivariant at the image: every map and every token among the outputs, no attention weights."""
    x = images(64)
    canonical = sampled(x, forward=False)
    for name in ("swin", "segformer-dense"):
        model = make(name)
        model.set_attn_implementation("eager")
        wanted = {"output_hidden_states": True, "output_attentions": True}
        with torch.no_grad():
            plain = model(canonical, **wanted)
            found = lse_dec.adapt(model, "image", canonicalizer=Fixed, mode="equivariant")(x, **wanted)
        for ours, theirs in zip(found.attentions, plain.attentions, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
        maps = "reshaped_hidden_states" if name == "swin" else "hidden_states"
        for ours, theirs in zip(found[maps], plain[maps], strict=True):
            torch.testing.assert_close(ours, sampled(theirs, forward=True), atol=1e-4, rtol=1e-4)
        if name == "swin":  # the same as tokens
            for tokens, ours in zip(found.hidden_states, found[maps], strict=True):
                torch.testing.assert_close(tokens, ours.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
        else:
            torch.testing.assert_close(
                found.logits, sampled(plain.logits, forward=True), atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize("name", ["vit", "dinov2", "swin"])
def test_hidden_states_are_what_the_model_hands_on(name: str) -> None:
    """transformers listens to the layers; in equivariant mode it hears what the next layer gets."""
    if name == "vit" and not FIVE:
        pytest.skip("release 4 replaces the layer's own forward while it listens, which no site can follow")
    case, x = CASES[name], images(CASES[name].size)
    adapted = lse_dec.adapt(make(name), case.stage, canonicalizer=Fixed, mode="equivariant")
    given: list[Tensor] = []
    adapted.sites[case.stage].register_forward_pre_hook(lambda _, args: given.append(args[0]))
    outer: list[Tensor] = []
    adapted.sites[case.stage].register_forward_hook(lambda _, args, out: outer.append(first(out)))
    with torch.no_grad():
        states = adapted(x, output_hidden_states=True).hidden_states
    assert len(states) == len(backbone_of(make(name)).stages(make(name))) + 1
    assert torch.equal(states[1], given[0])
    assert torch.equal(states[2], outer[0])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_weights_pass(implementation: str) -> None:
    model = make("vit")
    model.set_attn_implementation(implementation)
    adapted = lse_dec.adapt(model, ["image", f"vit.{LAYERS}.0"], mode="equivariant")
    with torch.no_grad():
        out = adapted(images(), output_attentions=implementation == "eager", return_dict=True)
    assert (out.attentions is not None) == (implementation == "eager")


def test_inside_a_module_of_ones_own() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = make("vit-bare")
            self.head = nn.Linear(24, 3)

        def forward(self, pixel_values: Tensor) -> Tensor:
            return self.head(self.backbone(pixel_values=pixel_values).pooler_output)

    model, x = Mine().eval(), images()
    with torch.no_grad():
        expected = model(x)
        adapted = lse_dec.adapt(model)
        assert list(adapted.sites) == ["image", f"backbone.{LAYERS}.0"]
        assert torch.allclose(adapted(pixel_values=x), expected, atol=1e-5)


def test_gradient_checkpointing_of_transformers() -> None:
    def gradients(adapted: lse_dec.AdaptedModel) -> dict[str, Tensor]:
        adapted.zero_grad()
        adapted(pixel_values=images(), labels=torch.tensor([1, 2])).loss.backward()
        return {n: p.grad.clone() for n, p in adapted.named_parameters() if p.grad is not None}

    adapted = lse_dec.adapt(make("vit"), ["image", f"vit.{LAYERS}.0"], steps=2).train()
    with torch.no_grad():
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=2.0)
    for module in adapted.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plain = gradients(adapted)
    adapted.base.gradient_checkpointing_enable({"use_reentrant": False})
    saved = gradients(adapted)
    assert plain.keys() == saved.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(saved[name], gradient, msg=name)


@pytest.mark.parametrize(("name", "widths"), [("dinov2", [32, 64]), ("swin", [64])])
def test_compiles_whole(name: str, widths: list[int]) -> None:
    case = CASES[name]
    options: dict[str, Any] = {"solver": "naive", "steps": 1, "mode": "equivariant"}
    adapted = lse_dec.adapt(make(name), ["image", case.stage], **options)
    with torch.no_grad():
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=2.0)
        compiled = torch.compile(adapted, backend="eager", fullgraph=True)
        for width in widths:
            x = images(case.size, width)
            found, expected = tensors(compiled(x)), tensors(adapted(x))
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, atol=1e-4, rtol=1e-4)
