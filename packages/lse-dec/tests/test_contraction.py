"""Measures of contraction against Jacobians written out, and contraction by construction."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lse_core.errors import LSEError, ShapeError
from lse_dec.canonicalizers import DEC
from lse_dec.contraction import jacobian_penalty, lipschitz, spectral_bound, spectral_radius
from lse_dec.solvers import Naive
from lse_dec.updates import Absolute, Compose, Residual, smooth_bound

F64 = torch.float64


def problem(seed: int = 0, dim: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(dim, dim, generator=generator, dtype=F64) / dim**0.5
    return w, torch.randn(3, dim, generator=generator, dtype=F64)


def jacobians(w: Tensor, z: Tensor) -> Tensor:
    return torch.stack([torch.autograd.functional.jacobian(lambda t: torch.tanh(t @ w.T), row) for row in z])


@pytest.mark.parametrize("seed", range(3))
def test_spectral_radius_is_the_largest_eigenvalue(seed: int) -> None:
    w, z = problem(seed)
    exact = torch.linalg.eigvals(jacobians(w, z)).abs().amax(1)
    generator = torch.Generator().manual_seed(0)
    found = spectral_radius(lambda t: torch.tanh(t @ w.T), z, iterations=400, generator=generator)
    torch.testing.assert_close(found, exact, rtol=0.03, atol=0)


def test_spectral_radius_of_a_rotation() -> None:
    # complex eigenvalues 0.9 e^(+-0.3i): Rayleigh's quotient would wander below
    angle = torch.tensor(0.3, dtype=F64)
    turn = 0.9 * torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    found = spectral_radius(lambda t: t @ turn.T, torch.zeros(2, 2, dtype=F64))
    torch.testing.assert_close(found, torch.full((2,), 0.9, dtype=F64))


@pytest.mark.parametrize("seed", range(3))
def test_lipschitz_is_the_largest_singular_value(seed: int) -> None:
    w, z = problem(seed)
    exact = torch.linalg.matrix_norm(jacobians(w, z), 2)
    found = lipschitz(lambda t: torch.tanh(t @ w.T), z, iterations=300)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=0)
    assert (found <= exact * (1 + 1e-9)).all()


def test_penalty_is_the_mean_square_of_the_jacobian_and_teaches() -> None:
    w, z = problem()
    w.requires_grad_()
    torch.manual_seed(0)
    exact = jacobians(w.detach(), z).square().sum((1, 2)).mean() / z.shape[1]
    found = jacobian_penalty(lambda t: torch.tanh(t @ w.T), z, samples=2000)
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0, check_dtype=False)
    found.backward()
    assert w.grad is not None
    with torch.no_grad():
        w -= 0.5 * w.grad
    assert jacobians(w.detach(), z).square().sum() < z.shape[1] * 3 * exact


def test_the_decs_own_update_can_be_measured() -> None:
    torch.manual_seed(0)
    dec, x = DEC(4), torch.randn(2, 4, 12, 12)
    update, w0 = dec.problem(x)
    # before training the step of Eq. 16 is zero, and the pull alone is left
    radius = spectral_radius(update, w0)
    torch.testing.assert_close(radius, torch.full((2,), 1.0 - Residual().pull), rtol=1e-4, atol=0)
    penalty = jacobian_penalty(update, w0)
    penalty.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in dec.parameters())


def test_bad_calls() -> None:
    with pytest.raises(ShapeError, match="at least 2 iterations"):
        spectral_radius(lambda t: t, torch.zeros(1, 2), iterations=1)


# by construction ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (4, 30), (30, 4), (16, 16)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_spectral_bound_is_above_the_norm_and_near(shape: tuple[int, int], size: float) -> None:
    w = size * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.matrix_norm(w, 2)
    assert exact * (1 - 1e-5) <= spectral_bound(w) <= exact * min(shape) ** (1 / 2**7) * (1 + 1e-4)


def test_spectral_bound_of_nothing_has_a_gradient() -> None:
    w = torch.zeros(3, 5, requires_grad=True)
    spectral_bound(w).backward()
    assert w.grad is not None
    assert w.grad.isfinite().all()


RULES: dict[str, Any] = {"residual": Residual(pull=0.5), "absolute": Absolute()}


def wild(rule: Any, contraction: float | None) -> tuple[DEC, Tensor]:
    """A DEC with weights far too large, and maps as steep as maps can be."""
    torch.manual_seed(0)
    dec = DEC(3, rule=rule, ratio=4.0, widths=(8, 8), projection=4, contraction=contraction, solver=Naive())
    with torch.no_grad():
        for p in dec.parameters():
            p.copy_(torch.randn_like(p) * (3.0 if p.ndim > 1 else 0.1))
    return dec.eval(), torch.randn(4, 3, 16, 16).sign()


@pytest.mark.parametrize("name", RULES)
def test_what_contracts_by_construction_contracts_whatever_the_weights(name: str) -> None:
    for contraction, expected in ((0.9, True), (None, False)):
        dec, x = wild(RULES[name], contraction)
        update, w0 = dec.problem(x)
        generator = torch.Generator().manual_seed(1)
        states = [smooth_bound(torch.randn(4, 2, 8, generator=generator), 4.0).flatten(1) for _ in range(4)]
        slopes = torch.stack([lipschitz(update, z, iterations=8) for z in states])
        chords = torch.stack(
            [
                (update(a) - update(b)).norm(dim=1) / (a - b).norm(dim=1)
                for a, b in zip(states, [w0, *states], strict=False)
            ]
        )
        assert (torch.maximum(slopes.amax(), chords.amax()) <= 0.9) == expected
        if expected:
            with torch.no_grad():
                ends = [dec(x, steps=150, start=z).solution.z for z in states[:2]]
            assert (ends[0] - ends[1]).abs().max() < 1e-5  # one fixed point, from anywhere


def test_the_factors_follow_the_weights() -> None:
    dec, x = wild(Residual(pull=0.5), 0.9)
    before = dec(x).solution.z
    other = DEC(
        3, rule=dec.rule, ratio=4.0, widths=(8, 8), projection=4, contraction=0.9, solver=Naive()
    ).eval()
    other.load_state_dict(dec.state_dict())
    assert torch.equal(other(x).solution.z, before)
    with torch.no_grad():  # an optimiser's step; eval measures the weights again
        dec.train().update.mix.weight.mul_(100.0)
    assert torch.allclose(dec.eval()(x).solution.z, before, atol=1e-6)
    dec.train()(x).warp.x.values.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in dec.parameters())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rule": Compose()}, "no bound is known for the rule Compose"),
        ({"rule": Residual(pull=0.05), "contraction": 0.9}, "it must be above 0.1; got pull 0.05"),
        ({"contraction": 1.0}, "contraction must lie between 0 and 1"),
    ],
)
def test_no_contraction_where_none_can_be_promised(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(LSEError, match=text):
        DEC(3, **{"contraction": 0.95, **settings})
