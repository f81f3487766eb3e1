"""Numbers about what canonicalizers did."""

import math

import pytest
import torch
from torch import nn

from lse_core import MonotoneMap, SeparableWarp
from lse_dec.canonicalizers import DEC, Canonicalization, Variation
from lse_dec.monitor import as_scalars, displacement, summarise


def test_displacement_of_a_known_warp() -> None:
    knots = torch.tensor([[0.0, 0.5, 1.0]])
    bent = MonotoneMap(knots, torch.tensor([[0.0, 0.7, 1.0]]))
    found = Canonicalization(SeparableWarp(bent, MonotoneMap.identity()))
    away = displacement(found)
    assert away.shape == (1, 2, 33)
    assert away[0, 0].max() == pytest.approx(0.2)
    assert away[0, 1].max() == pytest.approx(0.0, abs=1e-6)
    summary = summarise(found)
    # a tent of height 0.2 on 33 points, and an axis that stays
    assert summary.displacement == pytest.approx(0.1 * 32 / 33 / 2, rel=1e-3)
    assert summary.largest == pytest.approx(0.2)
    assert summary.slopes == pytest.approx((0.6, 1.4))
    assert summary.residual is summary.converged is summary.not_finite is None


def test_a_failed_solve_is_counted_and_spoils_no_mean() -> None:
    torch.manual_seed(0)
    dec, x = DEC(4), torch.randn(4, 4, 12, 12)
    nn.init.normal_(dec.update.head.weight)
    x[1] = math.nan
    summary = summarise(dec(x))
    assert summary.not_finite == 1
    assert summary.residual is not None
    assert math.isfinite(summary.residual)
    assert summary.converged is not None
    assert summary.converged <= 0.75


def test_scalars_are_named_by_site() -> None:
    x = torch.randn(2, 4, 12, 12)
    scalars = as_scalars({"image": DEC(4)(x), "layer1": Variation(4)(x)})
    assert scalars["lse/image/converged"] == 1.0
    assert scalars["lse/image/displacement"] == pytest.approx(0.0, abs=1e-6)
    assert scalars["lse/layer1/greatest_slope"] > 1.0
    assert "lse/layer1/residual" not in scalars
    assert all(isinstance(v, float) for v in scalars.values())
