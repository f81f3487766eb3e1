"""Every warp family, update rule and solver, on a GPU against the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lse_core import registry
from lse_dec.canonicalizers import DEC, Variation
from lse_dec.solvers import Code

RULES = {
    "separable": ("absolute", "compose", "residual"),
    "triangular": ("absolute", "residual"),
    "grid": ("absolute", "residual"),
}
"""Families whose products leave them have no rule that composes."""
SOLVERS = [n for n in registry().names("solver") if registry().provider("solver", n) == "lse-dec"]
COMBINATIONS = [(family, rule, solver) for family in RULES for rule in RULES[family] for solver in SOLVERS]


def dec(family: str, rule: str, solver: str, **settings: object) -> DEC:
    torch.manual_seed(0)
    chosen = {"solver": registry().get("solver", solver)(), "rule": registry().get("update", rule)()}
    made = DEC(6, warp=family, widths=(8, 8), projection=8, segments=4, **chosen, **settings)
    nn.init.normal_(made.update.head.weight, std=0.3)
    return made


def features(dtype: torch.dtype) -> Tensor:
    coarse = torch.randn(3, 6, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return nn.functional.interpolate(coarse, size=(14, 14), mode="bicubic", align_corners=True).to(dtype)


def solved(made: DEC, device: str, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """The states, and the gradients of what is learned and of the features, all on the CPU."""
    made = copy.deepcopy(made).to(device, dtype)
    x = features(dtype).to(device).requires_grad_()
    z = made(x).solution.z
    z.square().sum().backward()
    assert z.device.type == torch.device(device).type
    gradients = {name: p.grad.cpu() for name, p in made.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return z.detach().cpu(), {**gradients, "features": x.grad.cpu()}


def test_none_is_forgotten() -> None:
    assert sorted(RULES) == [
        n for n in registry().names("warp") if registry().provider("warp", n) == "lse-core"
    ]
    assert sorted(RULES["separable"]) == sorted(registry().names("update"))
    assert len(SOLVERS) >= 7


@pytest.mark.parametrize(("family", "rule", "solver"), COMBINATIONS)
def test_the_solve_is_that_of_the_cpu(device: str, family: str, rule: str, solver: str) -> None:
    made = dec(family, rule, solver)
    exact, slopes = solved(made, "cpu", torch.float64)
    assert exact.abs().max() > 1e-3  # it did move
    found, gradients = solved(made, device, torch.float64)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-10)
    assert gradients.keys() == slopes.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, slopes[name], rtol=1e-5, atol=1e-9, msg=name)
    # in single precision it may err as much as the CPU does, which multiplies its rounding too
    on_cpu, _ = solved(made, "cpu", torch.float32)
    single, _ = solved(made, device, torch.float32)
    allowed = 20 * (on_cpu - exact).abs().max() + 2e-5
    assert (single - exact).abs().max() <= allowed


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("family", RULES)
def test_samples_do_not_know_each_other(device: str, family: str, solver: str) -> None:
    made, x = dec(family, "residual", solver).to(device).double(), features(torch.float64).to(device)
    together = made(x).solution.z
    for i in range(len(x)):
        torch.testing.assert_close(made(x[i : i + 1]).solution.z[0], together[i], rtol=1e-8, atol=1e-10)


def test_a_nan_stays_in_its_sample(device: str) -> None:
    made, x = dec("separable", "residual", "anderson").to(device), features(torch.float32).to(device)
    clean = made(x).solution
    x[1, 0, 3, 3] = torch.nan
    found = made(x).solution
    torch.testing.assert_close(found.z[[0, 2]], clean.z[[0, 2]])
    assert found.codes.tolist()[1] == Code.NOT_FINITE
    assert found.z.isfinite().all()


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_other_gradients_are_those_of_the_cpu(device: str, gradient: str) -> None:
    made = dec("separable", "residual", "anderson", gradient=gradient)
    _, expected = solved(made, "cpu", torch.float64)
    _, found = solved(made, device, torch.float64)
    for name, each in found.items():
        torch.testing.assert_close(each, expected[name], rtol=1e-5, atol=1e-9, msg=name)


def test_the_analytic_canonicalizer_is_that_of_the_cpu(device: str) -> None:
    x = features(torch.float64)
    made = Variation(6, segments=8).double()
    expected = made(x).warp
    found = copy.deepcopy(made).to(device)(x.to(device)).warp
    for axis in ("x", "y"):
        there, here = getattr(found, axis), getattr(expected, axis)
        torch.testing.assert_close(there.values.cpu(), here.values, rtol=1e-9, atol=1e-12)
