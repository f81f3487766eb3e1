"""How much of a warp's effect on photographs the variation canonicalizer takes back, untrained."""

import math

import pytest
import torch
from torch import Tensor, nn

from lse_core import SeparableWarp, scale, unscale
from lse_dec.canonicalizers import Variation


def photographs(box: int) -> Tensor:
    """The two photographs that scikit-learn brings, 448 x 448, averaged over a box, (2, 3, H, W)."""
    datasets = pytest.importorskip("sklearn.datasets")
    pictures = [torch.tensor(p).permute(2, 0, 1).float() / 255 for p in datasets.load_sample_images().images]
    x = nn.functional.interpolate(torch.stack(pictures), size=(448, 448), mode="bilinear", antialias=True)
    r = box // 2
    return nn.functional.avg_pool2d(nn.functional.pad(x, (r, r, r, r), mode="replicate"), box, 1)


def wild_warps(seed: int) -> SeparableWarp:
    """Two warps with slopes that fill [0.3, 3], by rejection."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    while len(found) < 2:
        w = (torch.rand(2, 4, generator=generator) - 0.5) * 2 * math.log(3)
        slopes = 4 * w.softmax(-1)
        if float(slopes.min()) >= 0.3 and 2.0 < float(slopes.max()) <= 3.0:
            found.append(w)
    return SeparableWarp.from_log_slopes(torch.stack(found))


@pytest.mark.parametrize("seed", range(4))
def test_photographs_lose_99_percent_of_the_warps_effect(seed: int) -> None:
    x, g = photographs(17), wild_warps(seed)
    y = scale(x, g)
    module = Variation(3, strength=0.999)
    a, b = unscale(x, module(x).warp), unscale(y, module(y).warp)
    assert (a - b).square().mean() < 0.01 * (x - y).square().mean()


def test_the_fine_texture_is_the_limit() -> None:
    g, left = wild_warps(0), []
    for box in (1, 5, 17):
        x = photographs(box)
        y = scale(x, g)
        module = Variation(3, strength=0.999)
        a, b = unscale(x, module(x).warp), unscale(y, module(y).warp)
        left.append(float((a - b).square().mean() / (x - y).square().mean()))
    assert left[0] > 0.1 > left[2]
    assert left == sorted(left, reverse=True)
