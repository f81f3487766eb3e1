"""The model and the pictures that tests of engines use, on any machine."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from lse_dec import adapt


def pictures(n: int) -> Tensor:
    coarse = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return 2.0 * nn.functional.interpolate(coarse, (64, 64), mode="bicubic", align_corners=True)


def moving_vit(seed: int = 0) -> nn.Module:
    """A small ViT with two sites whose updates ask for more than the identity."""
    torch.manual_seed(seed)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, patch_size=8, depth=2, embed_dim=48, num_classes=10
    )
    nn.init.normal_(vit.head.weight, std=0.5)
    model = adapt(vit, ["image", "blocks.1"], solver="anderson", steps=3, resolution=8, segments=4).eval()
    for canonicalizer in model.canonicalizers.values():
        nn.init.normal_(canonicalizer.update.head.weight, std=0.3)
    return model
