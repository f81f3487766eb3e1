"""Numbers about what canonicalizers did."""

import math

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import lse_dec
from lse_core import GridWarp, MonotoneMap, SeparableWarp
from lse_dec.canonicalizers import DEC, Canonicalization, Variation
from lse_dec.monitor import as_scalars, displacement, summaries, summarise

NAMES = ["displacement", "largest_displacement", "least_slope", "greatest_slope", "residual", "converged",
         "not_finite"]  # fmt: skip


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


def test_coupled_warps_are_measured_too() -> None:
    warp = GridWarp.random(2, generator=torch.Generator().manual_seed(0))
    summary = summarise(Canonicalization(warp))  # type: ignore[arg-type]
    at = warp.lattice(33, 33)
    even = torch.stack(torch.meshgrid(*2 * [torch.linspace(0, 1, 33)], indexing="xy"), dim=-1)
    assert summary.displacement == pytest.approx(float((at - even).abs().mean()), rel=1e-4)
    assert summary.largest == pytest.approx(float((at - even).abs().max()), rel=1e-4)
    assert summary.slopes[0] < 1.0 < summary.slopes[1]
    # a separable warp, measured as if it were not, comes to the same
    exact = SeparableWarp.random(2, 4, 2.0, generator=torch.Generator().manual_seed(0))
    coupled = summarise(Canonicalization(exact @ GridWarp.identity(2)))  # type: ignore[arg-type]
    found = summarise(Canonicalization(exact))
    assert coupled.displacement == pytest.approx(found.displacement, rel=1e-4)
    assert coupled.slopes == pytest.approx(found.slopes, rel=1e-3)


def test_in_a_training_loop_of_ones_own() -> None:
    """What the README shows: one line a step, for any logger; nothing stays in the model."""
    model = lse_dec.adapt(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3))), "1").train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    log: list[dict[str, float]] = []
    for step in range(3):
        x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(step))
        with lse_dec.observe(model) as found:
            loss = model(x).square().mean() - 0.1 * model.canonicalizers["1"].update.head.weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.append(as_scalars(found))
    assert log[0].keys() == log[2].keys() == {f"lse/1/{name}" for name in NAMES}
    assert log[0]["lse/1/displacement"] < 1e-6 < log[2]["lse/1/displacement"]
    assert log[2]["lse/1/residual"] > 0


def test_the_numbers_of_all_sites_come_to_the_host_in_one_transfer() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 4, 12, 12)
    spoilt = x.clone()
    spoilt[1] = math.nan
    dec = DEC(4)
    nn.init.normal_(dec.update.head.weight)
    grid = GridWarp.random(4, 5, 0.2, generator=torch.Generator().manual_seed(0))
    record = {"a": dec(x), "b": Variation(4)(x), "c": dec(spoilt), "d": Canonicalization(grid),
              "e": DEC(4).double()(x.double())}  # fmt: skip
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        told = summaries(record)
    waits = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero"}
    assert not waits & {event.name for event in seen.events()}
    assert told == {name: summarise(found) for name, found in record.items()}
    residual, codes = record["c"].solution.residual, record["c"].solution.codes
    assert told["c"].residual == pytest.approx(float(residual[codes != 2].mean()))
    assert (told["c"].not_finite, told["c"].converged) == (1, float((codes == 0).float().mean()))
    assert told["b"].residual is told["d"].not_finite is None
    spoilt[:] = math.nan
    assert summarise(dec(spoilt)).residual == math.inf
    assert summaries({}) == {}
