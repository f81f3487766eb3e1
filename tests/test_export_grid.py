"""Every backbone and every solver, two sites each: exported, verified, and taken by every target.

NVIDIA's parser reads every file, what it read computes what the model computes, and nearly all are built.

The models are timm's own classes, made small. Their canonicalizers have random heads under the rule
"absolute", which then contracts and moves the warps; residual and compose are in test_export_onnx.py.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
import timm
import torch
from torch import Tensor, nn

import lse_export
from lse_dec import adapt, observe
from lse_dec.monitor import displacement

SMALL: dict[str, tuple[str, int, dict[str, Any]]] = {
    "vit_tiny": ("vit_tiny_patch16_224", 32, {"patch_size": 8, "depth": 1}),
    "deit_tiny": ("deit_tiny_distilled_patch16_224", 32, {"patch_size": 8, "depth": 1}),
    "swin_tiny": (
        "swin_tiny_patch4_window7_224",
        32,
        {"window_size": 4, "depths": (1, 1), "num_heads": (2, 4), "embed_dim": 32},
    ),
    "beit": ("beit_base_patch16_224", 32, {"patch_size": 8, "depth": 1, "embed_dim": 48, "num_heads": 3}),
    "dinov2": ("vit_small_patch14_dinov2", 56, {"depth": 1}),
    "resnet18": ("resnet18", 32, {"layers": (1, 1, 1, 1)}),
    "convnext": ("convnext_tiny", 32, {"depths": (1, 1, 1, 1), "dims": (16, 32, 48, 64)}),
}
FIXED_SIZE = ("vit_tiny", "deit_tiny", "swin_tiny", "beit", "dinov2")


def small(name: str) -> tuple[nn.Module, int]:
    full, size, options = SMALL[name]
    if name in FIXED_SIZE:
        options = {**options, "img_size": size}
    torch.manual_seed(0)
    model = timm.create_model(full, num_classes=10, **options)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "gamma" in key or "ls1" in key or "ls2" in key:
                parameter.fill_(0.5)  # layer scales start at 1e-6: the blocks would do nothing
            elif parameter.ndim > 1 and not key.endswith(("token", "pos_embed", "table")):
                # pretrained weights tell pictures apart; the small ones that training starts from do not
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model, size


def pictures(n: int, size: int) -> Tensor:
    coarse = torch.randn(n, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def stir(model: nn.Module) -> None:
    """Random heads: proposals of about 1, which move the warps by some percent of the side."""
    torch.manual_seed(1)
    for canonicalizer in model.canonicalizers.values():
        nn.init.normal_(canonicalizer.update.head.weight, std=4.0)


def check_that_it_moves_and_contracts(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad(), observe(model) as record:
        warped = model(images)
    for found in record.values():
        assert displacement(found).amax() > 0.02, "an export of the identity would prove nothing"
        trace = found.solution.residuals.amax(1)
        assert trace[-1] < 0.3 * trace[0], "the update must contract"
    with torch.no_grad(), model.without_sites() as base:
        plain = base(images)
    assert (warped - plain).abs().max() > 1e-3 * (warped.max() - warped.min())


def round_trip(
    model: nn.Module, images: Tensor, path: Path, nvidia: ModuleType | None, build: bool = False
) -> None:
    check_that_it_moves_and_contracts(model, images)
    lse_export.export_onnx(model, images[:2], path)
    checked = lse_export.verify(path, model, images, batch_sizes=(1, 2, 7), tolerance=1e-4)
    assert {row.verdict for row in checked.rows} == {"equal"}
    assert checked.relative <= 1e-4
    assert checked.argmax_agreement == 1.0
    assert not checked.not_contracting
    for target in ("tensorrt10", "tensorrt11", "tensorrt-rtx", "web"):
        assert lse_export.check(path, target).problems == []
    if nvidia is not None:
        with torch.no_grad():
            nvidia.check_reading(path, images, model(images), tolerance=1e-4)
        if build:
            nvidia.check_building(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "solver"),
    [
        # solvers see log-slopes, (B, D), and never a layout: each backbone has one of them, and each solver
        # a model of tokens and a convolutional one
        ("vit_tiny", "anderson"),
        ("deit_tiny", "broyden"),
        ("swin_tiny", "naive"),
        ("beit", "anderson"),
        ("dinov2", "naive"),
        ("resnet18", "broyden"),
        ("convnext", "anderson"),
        ("resnet18", "naive"),
        ("vit_tiny", "anderson-i"),
        ("resnet18", "anderson-i"),
    ],
)
def test_every_backbone_and_every_solver(
    name: str, solver: str, tmp_path: Path, nvidia: ModuleType | None
) -> None:
    model, size = small(name)
    adapted = adapt(model, solver=solver, rule="absolute", steps=3, resolution=8, segments=4).eval()
    assert len(adapted.sites) == 2
    stir(adapted)
    round_trip(adapted, pictures(7, size), tmp_path / "model.onnx", nvidia, build=True)


@pytest.mark.slow
def test_vit_tiny_as_it_is(tmp_path: Path, nvidia: ModuleType | None) -> None:
    torch.manual_seed(0)
    adapted = adapt(timm.create_model("vit_tiny_patch16_224"), rule="absolute").eval()
    stir(adapted)
    round_trip(adapted, pictures(2, 224), tmp_path / "model.onnx", nvidia)


@pytest.mark.slow
def test_half_precision_in_logits_of_a_few_units(tmp_path: Path, nvidia: ModuleType | None) -> None:
    model, size = small("swin_tiny")
    adapted = adapt(model, rule="absolute", steps=3, resolution=8, segments=4).eval()
    stir(adapted)
    path, images = tmp_path / "half.onnx", pictures(32, size)
    lse_export.export_onnx(adapted, images[:2], path, precision="float16")
    checked = lse_export.verify(path, adapted, images, batch_sizes=(8,), edges=False)
    assert 1e-4 < checked.max_abs_diff <= 5e-3  # of the logits themselves, not of their range
    assert checked.argmax_agreement >= 0.99
    if nvidia is not None:
        with torch.no_grad():
            nvidia.check_reading(path, images, adapted(images), tolerance=5e-3)


# solvers x precisions, with the rest spread over them; one in equivariant mode, which exports the inverse too
TRIANGULAR: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("resnet18", "naive", "xy", "float32", {"mode": "equivariant"}),
    ("vit_tiny", "anderson", "yx", "float32", {}),
    ("swin_tiny", "broyden", "xy", "float32", {"start": "variation"}),
    ("vit_tiny", "naive", "yx", "float16", {"sites": "image"}),
    ("swin_tiny", "anderson", "xy", "float16", {}),
    ("vit_tiny", "broyden", "xy", "float16", {"sites": "image"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "solver", "order", "precision", "more"), TRIANGULAR)
def test_triangular_warps(
    name: str,
    solver: str,
    order: str,
    precision: str,
    more: dict[str, Any],
    tmp_path: Path,
    nvidia: ModuleType | None,
) -> None:
    model, size = small(name)
    options: dict[str, Any] = {
        "warp": "triangular",
        "order": order,
        "solver": solver,
        "rule": "absolute",
        **more,
    }
    adapted = adapt(model, steps=3, resolution=8, segments=4, **options).eval()
    stir(adapted)
    path, images = tmp_path / "model.onnx", pictures(7, size)
    if precision == "float32":
        round_trip(adapted, images, path, nvidia, build=solver == "anderson")
    else:
        check_that_it_moves_and_contracts(adapted, images)
        lse_export.export_onnx(adapted, images[:2], path, precision=precision)
        assert lse_export.verify(path, adapted, images, batch_sizes=(2,), edges=False).relative <= 5e-3
        for target in ("tensorrt10", "tensorrt11", "tensorrt-rtx"):
            assert lse_export.check(path, target).problems == []
        if nvidia is not None:
            with torch.no_grad():
                nvidia.check_reading(path, images, adapted(images), tolerance=5e-3)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert "GatherElements" in operators  # the image, of three channels, by taps; features by products
    assert "GridSample" not in operators
