"""A stranger's canonicalizer, registered by a plugin, in a model and through a file."""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import lse_dec
from lse_core import SeparableWarp, hookimpl, registry
from lse_dec.canonicalizers import Canonicalization


class Half(nn.Module):
    """A stranger's canonicalizer: one learned warp for everything."""

    def __init__(self, channels: int, *, segments: int = 4) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, 2, segments))

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        warp = SeparableWarp.from_log_slopes(self.w.float())
        return Canonicalization(warp.broadcast(features.shape[0]))


class Acme:
    @hookimpl
    def lse_canonicalizers(self) -> dict[str, Any]:
        return {"half": Half}


def test_a_strangers_canonicalizer_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=5).eval()
    registry().register(Acme(), "acme")
    try:
        adapted = lse_dec.adapt(model, ["image", "layer1"], canonicalizer="half", segments=6)
        x = torch.randn(2, 3, 64, 64)
        optimiser = torch.optim.SGD(adapted.canonicalizer_parameters(), 0.1)
        adapted(x).square().sum().backward()
        optimiser.step()
        assert all((c.w != 0).any() for c in adapted.canonicalizers.values())
        lse_dec.save(adapted, tmp_path)
        with torch.no_grad():
            assert torch.equal(lse_dec.load(tmp_path)(x), adapted(x))
    finally:
        registry().unregister("acme")
