"""Half precision, eight bits, raw pictures, any size, a pyramid, a segmentor: read and built by NVIDIA's own.

The grid of backbones and solvers in float32 is in test_export_grid.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnxruntime as ort
import pytest
import timm
import torch
from torch import Tensor, nn

import lse_export
from lse_dec import adapt
from lse_export.metadata import facts_of
from lse_export.preprocess import Prepare
from lse_export.unroll import tolerance_of

pytestmark = pytest.mark.slow


def smooth(n: int, size: int) -> Tensor:
    coarse = torch.randn(n, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def moving(model: nn.Module, sites: list[str] | None = None, **options: Any) -> nn.Module:
    """Adapted, with random heads, which move the warps, and with weights that tell pictures apart."""
    torch.manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1 and not key.endswith(("token", "pos_embed", "table")):
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    made = adapt(model, sites, rule="absolute", steps=3, resolution=8, segments=4, **options).eval()
    for canonicalizer in made.canonicalizers.values():
        nn.init.normal_(canonicalizer.update.head.weight, std=4.0)
    return made


def tokens() -> nn.Module:
    return moving(
        timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, num_classes=10)
    )


def convolutions() -> nn.Module:
    model = timm.create_model("resnet18", layers=(1, 1, 1, 1), num_classes=10)
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 32, 32)}
    return moving(model, solver="broyden")


def pyramid() -> nn.Module:
    return moving(timm.create_model("pvt_v2_b0", depths=(1, 1, 1, 1), num_classes=10))


def segmentor() -> nn.Module:
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    from lse_seg.exporting import DenseSegmentor
    from lse_seg.running import load_config

    init_default_scope("mmseg")
    torch.manual_seed(0)
    config = load_config("segformer_dec")
    config.model.canonicalizer.steps = 3
    model: Any = MODELS.build(config.model)
    model.init_weights()
    for site in model.sites.values():
        for parameter in site.canonicalizer.parameters():
            with torch.no_grad():
                parameter += 0.2 * torch.randn_like(parameter)
    nn.init.normal_(model.decode_head.conv_seg.weight, std=1.0)
    return DenseSegmentor(model).eval()


def node_by_node(path: Path, images: Tensor) -> Tensor:
    """What ONNX Runtime makes of a file without fusing its nodes."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": images.numpy()})[0])


CASES: dict[str, tuple[Callable[[], nn.Module], int, dict[str, Any]]] = {
    "tokens in half": (tokens, 32, {"precision": "float16"}),
    "convolutions in half, outputs too": (convolutions, 32, {"precision": "float16", "half_io": True}),
    "tokens in eight bits": (tokens, 32, {"precision": "int8"}),
    "convolutions in eight bits": (convolutions, 32, {"precision": "int8"}),
    "raw pictures": (convolutions, 32, {"preprocess": (48, 40)}),
    "any size": (convolutions, 64, {"dynamic_size": True}),
    "pyramid, weights beside the graph": (pyramid, 64, {"external_data": True}),
    "segmentor": (segmentor, 64, {}),
    "segmentor in half": (segmentor, 64, {"precision": "float16"}),
}


@pytest.mark.parametrize("name", CASES)
def test_read_and_built_by_nvidia(name: str, tmp_path: Path, nvidia: ModuleType | None) -> None:
    make, size, options = CASES[name]
    model, path, images = make(), tmp_path / "model.onnx", smooth(4, size)
    precision = options.get("precision", "float32")
    if precision == "int8":
        options = {**options, "calibration": images}
    lse_export.export_onnx(model, images[:2], path, **options)
    for target in ("tensorrt10", "tensorrt11", "tensorrt-rtx"):
        assert lse_export.check(path, target).problems == []
    if nvidia is None:
        pytest.skip("TensorRT for RTX is not installed: it has wheels for 64-bit Intel/AMD alone")
    inputs, prepared = images, images
    if "preprocess" in options:
        generator = torch.Generator().manual_seed(0)
        raw = facts_of(path).raw_pictures()
        assert raw is not None
        inputs = torch.randint(0, 256, (4, *raw.shape), dtype=torch.uint8, generator=generator)
        prepared = Prepare(raw)(inputs)
    with torch.no_grad():
        nvidia.check_reading(path, inputs, model(prepared), tolerance_of(precision))
        with pytest.raises(AssertionError, match=r"as NVIDIA's parser reads model\.onnx, it is off by"):
            nvidia.check_reading(path, inputs, model(prepared).flip(0), tolerance_of(precision))
        if precision == "int8":  # and to the levels of eight bits, what the file says node by node
            nvidia.check_reading(path, inputs, node_by_node(path, inputs), 1e-2)
        if "dynamic_size" in options:
            for height, width in ((64, 96), (128, 80)):
                other = nn.functional.interpolate(images, (height, width), mode="bilinear")
                nvidia.check_reading(path, other, model(other), 1e-4)
    axes = {"height": (64, 96, 128), "width": (64, 96, 128)} if "dynamic_size" in options else {}
    made = nvidia.check_building(path, axes={"batch": (1, 2, 4), **axes})
    kinds = {"float16": "float16, float32", "int8": "float32, int8", "float32": "float32"}
    assert made.facts.precision == kinds[precision]
