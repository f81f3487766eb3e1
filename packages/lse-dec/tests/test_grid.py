"""Every family and five models of the generic route x every rule x every solver.

One cell: the base's logits come back before training, gradients into the canonicalizers are finite and not
all zero, and what is saved and loaded answers the same.
"""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import lse_dec

TOKENS = {"depth": 2, "embed_dim": 24, "num_heads": 3}
WINDOWS = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 1, 1, 1)}

# name in timm, keywords, image size
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit": ("vit_tiny_patch16_224", {**TOKENS, "img_size": 32, "patch_size": 8}, 32),
    "deit": ("deit_tiny_distilled_patch16_224", {**TOKENS, "img_size": 32, "patch_size": 8}, 32),
    "dinov2": ("vit_small_patch14_reg4_dinov2", {**TOKENS, "img_size": 42}, 42),
    "beit": ("beit_base_patch16_224", {**TOKENS, "img_size": 32, "patch_size": 8}, 32),
    "swin": ("swin_tiny_patch4_window7_224", WINDOWS, 64),
    "resnet": ("resnet10t", {}, 64),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, 64),
    "pvt": ("pvt_v2_b0", {"depths": (1, 1, 1, 1)}, 64),
    "hrnet": ("hrnet_w18_small", {}, 64),
    "mobilenet": ("mobilenetv3_small_050", {}, 64),
    "regnet": ("regnetx_002", {}, 64),
    "maxvit": ("maxvit_pico_rw_256", {"img_size": 64}, 64),
    "cait": ("cait_xxs24_224", {**TOKENS, "img_size": 32, "patch_size": 8}, 32),
    "mixer": ("mixer_s32_224", {"img_size": 64}, 64),
}
QUICK = [("residual", "anderson")]
CELLS = [
    pytest.param(model, rule, solver, marks=[] if (rule, solver) in QUICK else [pytest.mark.slow])
    for model in MODELS
    for rule in ("residual", "compose", "absolute")
    for solver in ("anderson", "broyden", "naive")
]


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    timm_name, settings, _ = MODELS[name]
    return timm.create_model(timm_name, num_classes=4, **settings).eval()


@pytest.mark.parametrize(("model", "rule", "solver"), CELLS)
def test_cell(model: str, rule: str, solver: str, tmp_path: Path) -> None:
    base = make(model)
    size = MODELS[model][2]
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = base(x)
    adapted = lse_dec.adapt(base, rule=rule, solver=solver, steps=3)
    assert len(adapted.sites) == 2
    with torch.no_grad():
        # 1e-5 of the logits' size: random weights make some models' huge
        assert (adapted(x) - logits).abs().max() < 1e-5 * max(1.0, float(logits.abs().max()))
        for canonicalizer in adapted.canonicalizers.values():
            canonicalizer.update.head.weight.normal_(std=2.0)
    with lse_dec.observe(adapted) as found:
        out = adapted(x)
    # the warps take part in the loss directly too: random logits may hardly depend on them
    moved = sum(f.warp.x.values.square().sum() + f.warp.y.values.square().sum() for f in found.values())
    (out.square().sum() + moved).backward()
    for name, p in adapted.named_parameters():
        if ".canonicalizer." in f".{name}":
            assert p.grad is not None, name
        assert p.grad is None or p.grad.isfinite().all(), name
    for canonicalizer in adapted.canonicalizers.values():
        assert canonicalizer.update.head.weight.grad.abs().max() > 0
    lse_dec.save(adapted, tmp_path, model_kwargs={"num_classes": 4, **MODELS[model][1]})
    with torch.no_grad():
        assert torch.equal(lse_dec.load(tmp_path)(x), adapted(x))
