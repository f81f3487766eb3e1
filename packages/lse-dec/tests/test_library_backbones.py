"""torchvision's and transformers' models: where their stages are, and that a warp moves the patches alone."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import lse_dec
from lse_core import SeparableWarp
from lse_core.errors import ShapeError
from lse_dec.backbones import Stage, backbone_of
from lse_dec.backbones.probe import probe
from lse_dec.canonicalizers import Canonicalization

FIVE = int(transformers.__version__.split(".")[0]) >= 5
"""Release 5 named some modules anew; both are known."""
LAYERS = "layers" if FIVE else "encoder.layer"


def block(stage: int, layer: int) -> str:
    """SegFormer's layer."""
    return f"segformer.stages.{stage}.blocks.{layer}" if FIVE else f"segformer.encoder.block.{stage}.{layer}"


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


def vision_transformer() -> nn.Module:
    model = torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 48, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # torchvision begins with zeros
    return model


class Case(NamedTuple):
    """A model, and what is known of one of its stages without asking the code under test."""

    make: Callable[[], nn.Module]
    family: str
    stage: str
    count: int
    channels: int
    grid: tuple[int, int]
    prefix: int | str
    """Prefix tokens, or "nhwc", "nchw"."""
    size: int = 32


CASES = {
    "tv-vit": Case(vision_transformer, "TorchvisionViT", "encoder.layers.encoder_layer_1", 2, 24, (4, 4), 1),
    "tv-swin": Case(
        lambda: torchvision.models.SwinTransformer([4, 4], 12, [1, 1, 1], [2, 4, 4], [4, 4], num_classes=5),
        "TorchvisionSwin", "features.3", 5, 24, (8, 8), "nhwc", 64,
    ),
    "tv-swin-merging": Case(
        lambda: torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [2, 4], [4, 4], num_classes=5),
        "TorchvisionSwin", "features.2", 3, 12, (16, 16), "nhwc", 64,
    ),
    "tv-convnext": Case(
        lambda: torchvision.models.ConvNeXt(
            [torchvision.models.convnext.CNBlockConfig(8, 16, 1),
             torchvision.models.convnext.CNBlockConfig(16, None, 1)], num_classes=5),
        "TorchvisionConvNeXt", "features.2", 3, 8, (16, 16), "nchw", 64,
    ),
    "tv-resnet": Case(
        lambda: torchvision.models.resnet18(num_classes=5), "ResNet", "layer3", 4, 128, (8, 8), "nchw", 64,
    ),
    "vit": Case(
        hugging("ViTForImageClassification", "ViTConfig", **TOKENS, intermediate_size=48),
        "TransformersViT", f"vit.{LAYERS}.1", 2, 24, (4, 4), 1,
    ),
    "vit-bare": Case(
        hugging("ViTModel", "ViTConfig", **TOKENS, intermediate_size=48),
        "TransformersViT", f"{LAYERS}.0", 2, 24, (4, 4), 1,
    ),
    "deit": Case(
        hugging("DeiTForImageClassificationWithTeacher", "DeiTConfig", **TOKENS, intermediate_size=48),
        "TransformersViT", f"deit.{LAYERS}.1", 2, 24, (4, 4), 2,
    ),
    "dinov2": Case(
        hugging("Dinov2ForImageClassification", "Dinov2Config", **TOKENS, mlp_ratio=2),
        "TransformersViT", "dinov2.encoder.layer.1", 2, 24, (4, 4), 1,
    ),
    "dinov2-registers": Case(
        hugging("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", **TOKENS,
                mlp_ratio=2, num_register_tokens=3),
        "TransformersViT", "dinov2_with_registers.encoder.layer.1", 2, 24, (4, 4), 4,
    ),
    "swin": Case(
        hugging("SwinForImageClassification", "SwinConfig", **WINDOWS),
        "TransformersSwin", "swin.encoder.layers.1", 3, 24, (8, 8), 0, 64,
    ),
    "swinv2": Case(
        hugging("Swinv2ForImageClassification", "Swinv2Config", **WINDOWS),
        "TransformersSwin", "swinv2.encoder.layers.1", 3, 24, (8, 8), 0, 64,
    ),
    "dinov2-backbone": Case(
        hugging("Dinov2Backbone", "Dinov2Config", **TOKENS, mlp_ratio=2, out_features=["stage1", "stage2"]),
        "TransformersViT", "encoder.layer.0", 2, 24, (4, 4), 1,
    ),
    "swin-backbone": Case(
        hugging("SwinBackbone", "SwinConfig", **WINDOWS, out_features=["stage2", "stage3"]),
        "TransformersSwin", "swin.encoder.layers.1" if FIVE else "encoder.layers.1", 3, 24, (8, 8), 0, 64,
    ),
    "segformer": Case(
        hugging("SegformerForImageClassification", "SegformerConfig", **SEGFORMER),
        "TransformersSegFormer", block(1, 1), 5, 16, (8, 8), 0, 64,
    ),
    "segformer-dense": Case(
        hugging("SegformerForSemanticSegmentation", "SegformerConfig", **SEGFORMER),
        "TransformersSegFormer", block(1, 0), 5, 16, (8, 8), 0, 64,
    ),
}  # fmt: skip


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


def reference(x: Tensor, case: Case, forward: bool = False) -> Tensor:
    """S^-1 (S if `forward`) of what enters a stage, patches put on the grid by hand."""
    if case.prefix == "nchw":
        return sampled(x, forward)
    if case.prefix == "nhwc":
        return sampled(x.permute(0, 3, 1, 2), forward).permute(0, 2, 3, 1)
    k, (rows, columns) = int(case.prefix), case.grid
    assert x.shape[1] == k + rows * columns
    moved = torch.empty_like(x)
    moved[:, :k] = x[:, :k]
    maps = torch.stack([x[:, k + r * columns + c] for r in range(rows) for c in range(columns)], 2)
    maps = sampled(maps.view(2, -1, rows, columns), forward)
    for r in range(rows):
        for c in range(columns):
            moved[:, k + r * columns + c] = maps[:, :, r, c]
    return moved


def first(found: Any) -> Tensor:
    return found if isinstance(found, Tensor) else found[0]


@pytest.mark.parametrize("name", CASES)
def test_stages(name: str) -> None:
    case, model = CASES[name], make(name)
    backbone = backbone_of(model)
    assert type(backbone).__name__ == case.family
    assert backbone.image(model).channels == 3
    stages = {stage.name: stage for stage in backbone.stages(model)}
    assert len(stages) == case.count
    entered: dict[str, Tensor] = {}
    for each in stages:
        model.get_submodule(each).register_forward_pre_hook(
            lambda _, args, each=each: entered.update({each: args[0]})
        )
    model(images(case.size))
    assert list(entered) == list(stages)  # in order of execution, and all of them run
    for each, stage in stages.items():
        assert stage.channels == entered[each].shape[1 if case.prefix == "nchw" else -1]
    assert stages[case.stage].channels == case.channels


@pytest.mark.parametrize("name", CASES)
def test_a_warp_moves_the_patches_and_nothing_else(name: str) -> None:
    """Invariant mode, against the unadapted model whose stage is fed by hand."""
    case, model = CASES[name], make(name)
    x = images(case.size)
    fed: list[Tensor] = []

    def by_hand(_: nn.Module, args: tuple[Any, ...]) -> Any:
        fed.append(args[0])
        return (reference(args[0], case), *args[1:])

    plain = copy.deepcopy(model)
    plain.get_submodule(case.stage).register_forward_pre_hook(by_hand)
    with torch.no_grad():
        untouched = model(x)
        expected = plain(x)
        adapted = lse_dec.adapt(model, case.stage, canonicalizer=Fixed)
        entered: list[Tensor] = []
        adapted.sites[case.stage].stage.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
        found = adapted(x)
    torch.testing.assert_close(entered[0], reference(fed[0], case), atol=1e-5, rtol=1e-4)
    if isinstance(case.prefix, int):
        assert torch.equal(entered[0][:, : case.prefix], fed[0][:, : case.prefix])
        assert (entered[0][:, case.prefix :] - fed[0][:, case.prefix :]).abs().max() > 0.1
    assert type(found) is type(expected)
    for key, value in tensors(expected).items():
        torch.testing.assert_close(tensors(found)[key], value, atol=1e-4, rtol=1e-4)
    # and the test can tell: without the warp the model answers differently
    assert any((tensors(untouched)[k] - v).abs().max() > 1e-5 for k, v in tensors(expected).items())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "merging" not in name])
def test_equivariant_mode_puts_the_patches_back(name: str) -> None:
    case, model = CASES[name], make(name)
    x = images(case.size)
    adapted = lse_dec.adapt(model, case.stage, canonicalizer=Fixed, mode="equivariant")
    site = adapted.sites[case.stage]
    entered: list[Tensor] = []
    inner: list[Tensor] = []
    outer: list[Tensor] = []
    site.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    site.stage.register_forward_hook(lambda _, args, out: inner.append(first(out)))
    site.register_forward_hook(lambda _, args, out: outer.append(first(out)))
    with torch.no_grad():
        adapted(x)
    if inner[0].shape == entered[0].shape:  # Eq. 21 with the identity path kept
        expected = entered[0] + reference(inner[0] - reference(entered[0], case), case, forward=True)
        if isinstance(case.prefix, int):
            expected[:, : case.prefix] = inner[0][:, : case.prefix]
    else:  # a stage that makes the map smaller
        half = case._replace(grid=tuple(n // 2 for n in case.grid))
        expected = reference(inner[0], half, forward=True)
    torch.testing.assert_close(outer[0], expected, atol=1e-5, rtol=1e-4)
    assert (outer[0] - inner[0]).abs().max() > 0.01


@pytest.mark.parametrize("mode", ["invariant", "equivariant"])
@pytest.mark.parametrize("name", CASES)
def test_life_of_an_adapted_model(name: str, mode: str, tmp_path: Path) -> None:
    """Fresh: the identity. Stirred: gradients, observed, saved and loaded. Taken apart: bit for bit."""
    case, model = CASES[name], make(name)
    x, hugging_face = images(case.size), "Transformers" in case.family
    names, hooks = [n for n, _ in model.named_modules()], _hooks(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wanted = {"output_hidden_states": True} if hugging_face else {}
    with torch.no_grad():
        if hugging_face:
            model(x, **wanted)  # installs transformers' own hooks
            hooks = _hooks(model)
        base = model(x, **wanted)
        sites = ["image", case.stage]
        adapted = lse_dec.adapt(model, sites, mode=mode, rule="compose", steps=2, segments=4)
        fresh = adapted(pixel_values=x, **wanted) if hugging_face else adapted(x)
        assert type(fresh) is type(base)
        assert tensors(fresh).keys() == tensors(base).keys()
        for key, value in tensors(base).items():
            assert (tensors(fresh)[key] - value).abs().max() < 1e-3 * max(1.0, float(value.abs().max())), key
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=2.0)
    with lse_dec.observe(adapted) as found:
        out = adapted(x, **wanted)
    assert list(found) == sites
    assert all((site.warp.x.values - site.warp.x.knots).abs().max() > 1e-3 for site in found.values())
    sum(v.square().mean() for v in tensors(out).values() if v.requires_grad).backward()
    for part, p in adapted.named_parameters():
        if ".canonicalizer." in part:
            assert p.grad is not None, part
            assert p.grad.isfinite().all(), part
    lse_dec.save(adapted, tmp_path)
    again = lse_dec.load(tmp_path, make(name)).eval()
    with torch.no_grad():
        stirred = tensors(adapted(x, **wanted))
        for key, value in tensors(again(x, **wanted)).items():
            assert torch.equal(value, stirred[key]), key
        copied = pickle.loads(pickle.dumps(adapted)) if not hugging_face else copy.deepcopy(adapted)
        assert torch.equal(next(iter(tensors(copied(x)).values())), next(iter(tensors(adapted(x)).values())))
    back = lse_dec.unadapt(adapted)
    assert back is model
    assert [n for n, _ in back.named_modules()] == names
    assert _hooks(back) == hooks
    assert all(torch.equal(v, before[k]) for k, v in back.state_dict().items())
    with torch.no_grad():
        for key, value in tensors(back(x, **wanted)).items():
            assert torch.equal(value, tensors(base)[key]), key


def _hooks(model: nn.Module) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_wrong_grid_is_one_line() -> None:
    adapted = lse_dec.adapt(make("vit"), f"vit.{LAYERS}.0")
    with pytest.raises(ShapeError, match="20 tokens are not 1 prefix tokens and a 4 x 4 grid"):
        adapted.sites[f"vit.{LAYERS}.0"](torch.zeros(2, 20, 24))
    seg = lse_dec.adapt(make("segformer"), block(0, 0))
    with pytest.raises(ShapeError, match="unknown until the model has run on an image"):
        seg.sites[block(0, 0)](torch.zeros(2, 16, 8), 4, 4)


def test_no_library_is_imported_to_look() -> None:
    code = (
        "import sys, torch.nn as nn\n"
        "from lse_dec.backbones import backbone_of\n"
        "backbone_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))\n"
        "assert not {'transformers', 'torchvision'} & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_stages_are_plain_descriptions() -> None:
    model = make("vit")
    stage = backbone_of(model).stages(model)[0]
    assert isinstance(stage, Stage)
    assert stage.layout.grid == (4, 4)
    assert [backbone_of(make(n)).image(make(n)).size for n in ("vit", "deit", "tv-vit")] == [(32, 32)] * 3
    assert backbone_of(make("dinov2")).image(make("dinov2")).size is None


def test_a_dry_run_finds_the_size() -> None:
    for name in ("vit", "tv-vit", "swin"):
        size = CASES[name].size
        assert probe(make(name))[""].shape == (2, 3, size, size)
