"""Both axes looked up in one pass where the picture is square: the same numbers, and a batch left free."""

import pytest
import torch
from torch import Tensor, nn

from lse_core import MonotoneMap, SeparableWarp, unscale


def warp(batch: int, segments: tuple[int, int] = (4, 4)) -> SeparableWarp:
    g = torch.Generator().manual_seed(0)
    return SeparableWarp(*(MonotoneMap.from_logits(torch.randn(batch, n, generator=g)) for n in segments))


@pytest.mark.parametrize("size", [(12, 12), (12, 9), (40, 40)])
@pytest.mark.parametrize("segments", [(4, 4), (4, 6)])
@pytest.mark.parametrize("batch", [1, 3])
def test_positions_are_the_maps(size: tuple[int, int], segments: tuple[int, int], batch: int) -> None:
    h, w = size
    v, u = (torch.linspace(0, 1, n, dtype=torch.float64) for n in size)
    ramps = torch.stack([u.expand(h, w), v.unsqueeze(1).expand(h, w)]).expand(3, 2, h, w)
    there = SeparableWarp(*(m.to(torch.float64) for m in (warp(batch, segments).x, warp(batch, segments).y)))
    out = unscale(ramps, there)  # pictures of their own coordinates show the warp itself
    x, y = there.broadcast(3).x(u), there.broadcast(3).y(v)
    assert (out[:, 0] - x.unsqueeze(1)).abs().max() < 1e-12
    assert (out[:, 1] - y.unsqueeze(2)).abs().max() < 1e-12


class Unscale(nn.Module):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return unscale(x, SeparableWarp.from_logits(z))


def test_a_square_picture_leaves_the_batch_free() -> None:
    x, z = torch.rand(5, 3, 8, 8), torch.randn(5, 2, 4)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Unscale(), (x[:2], z[:2]), dynamic_shapes=({0: batch}, {0: batch}))
    assert torch.allclose(program.module()(x, z), Unscale()(x, z), atol=1e-6)
