"""Gradients through a fixed point, against finite differences in float64."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_dec.gradients import Gradient, Implicit, Phantom, Unrolled, as_gradient
from lse_dec.solvers import Anderson, Code, Naive, Solver

F64 = torch.float64


class Cell(nn.Module):
    """z -> tanh(W z + U x), Lipschitz constant 0.6."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        w = torch.randn(dim, dim, generator=generator, dtype=F64)
        self.w = nn.Parameter(0.6 * w / torch.linalg.matrix_norm(w, 2))
        self.u = nn.Parameter(torch.randn(dim, dim, generator=generator, dtype=F64) * 0.5)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.w.T + x @ self.u.T)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return (torch.randn(3, 6, generator=generator, dtype=F64) for _ in range(2))  # type: ignore[return-value]


def run(cell: Cell, x: Tensor, gradient: Gradient, solver: Solver | None = None, steps: int = 60) -> Tensor:
    return gradient.solve(lambda z: cell(z, x), torch.zeros_like(x), solver or Anderson(), steps=steps).z


def analytic(gradient: Gradient, **options: Any) -> dict[str, Tensor]:
    cell, (x, target) = Cell(), data()
    x.requires_grad_()
    ((run(cell, x, gradient, **options) - target).square().sum()).backward()
    grads = {"w": cell.w.grad, "u": cell.u.grad, "x": x.grad}
    return {k: v for k, v in grads.items() if v is not None}


def finite_differences(h: float = 1e-6) -> dict[str, Tensor]:
    cell, (x, target) = Cell(), data()
    result = {}
    with torch.no_grad():
        for name, p in (("w", cell.w), ("u", cell.u), ("x", x)):
            grad, flat = torch.zeros_like(p), p.view(-1)
            for i in range(flat.numel()):
                keep = float(flat[i])
                losses = []
                for value in (keep + h, keep - h):
                    flat[i] = value
                    losses.append((run(cell, x, Unrolled(), steps=40) - target).square().sum())
                flat[i] = keep
                grad.view(-1)[i] = (losses[0] - losses[1]) / (2 * h)
            result[name] = grad
    return result


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return finite_differences()


def worst(grads: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    assert grads.keys() == reference.keys()
    return max(float((grads[k] - v).abs().max() / v.abs().max()) for k, v in reference.items())


def test_implicit_is_exact(reference: dict[str, Tensor]) -> None:
    assert worst(analytic(Implicit(steps=60, tol=1e-13)), reference) < 1e-6


def test_implicit_of_default_settings_is_good(reference: dict[str, Tensor]) -> None:
    assert worst(analytic(Implicit()), reference) < 1e-6


def test_phantom_tends_to_it(reference: dict[str, Tensor]) -> None:
    errors = [worst(analytic(Phantom(steps=k)), reference) for k in (1, 3, 6, 12, 25)]
    assert all(b < a for a, b in pairwise(errors)), errors
    assert errors[0] > 1e-2  # one step is really another gradient
    assert errors[-1] < 1e-5


def test_damped_phantom_tends_to_it(reference: dict[str, Tensor]) -> None:
    assert worst(analytic(Phantom(steps=60, damping=0.5)), reference) < 1e-5


@pytest.mark.parametrize("solver", [Naive(), Anderson()])
def test_unrolled_tends_to_it(reference: dict[str, Tensor], solver: Solver) -> None:
    short = worst(analytic(Unrolled(), solver=solver, steps=3), reference)
    long = worst(analytic(Unrolled(), solver=solver, steps=40), reference)
    assert long < 1e-4 < short


def test_implicit_passes_gradcheck() -> None:
    cell, (x, _) = Cell(), data()
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w, u: (
            Implicit(steps=60, tol=1e-13)
            .solve(lambda z: torch.tanh(z @ w.T + x @ u.T), torch.zeros_like(x), Anderson(), steps=80)
            .z
        ),
        (x, cell.w, cell.u),
        atol=1e-6,
    )


@pytest.mark.parametrize("gradient", [Implicit(), Phantom(), Unrolled()])
def test_one_module_twice_before_backward(gradient: Gradient) -> None:
    # every two-view loss does this; torchdeq's own hook raises here
    cell, (x, y) = Cell(), data()
    (run(cell, x, gradient).sum() + run(cell, y, gradient).square().sum()).backward()
    together = cell.w.grad
    assert together is not None
    apart = []
    for loss in (lambda: run(cell, x, gradient).sum(), lambda: run(cell, y, gradient).square().sum()):
        cell.zero_grad()
        loss().backward()
        assert cell.w.grad is not None
        apart.append(cell.w.grad)
    torch.testing.assert_close(together, apart[0] + apart[1])


@pytest.mark.parametrize("gradient", [Implicit(), Phantom(), Unrolled()])
def test_same_solution_with_and_without_a_graph(gradient: Gradient) -> None:
    cell, (x, _) = Cell(), data()
    with_graph = run(cell, x, gradient)
    with torch.no_grad():
        without = run(cell, x, gradient)
    assert with_graph.requires_grad
    assert not without.requires_grad
    assert (with_graph - without).abs().max() < 1e-8


@pytest.mark.parametrize("gradient", [Implicit(), Phantom()])
def test_the_solve_itself_records_no_graph(gradient: Gradient) -> None:
    cell, (x, _) = Cell(), data()
    graded = 0

    def f(z: Tensor) -> Tensor:
        nonlocal graded
        graded += torch.is_grad_enabled()
        return cell(z, x)

    gradient.solve(f, torch.zeros_like(x), Anderson(), steps=30)
    assert graded <= 3  # the phantom steps, or the one implicit step, whatever the number of steps


@pytest.mark.parametrize("gradient", [Implicit(), Phantom(), Unrolled()])
def test_a_failed_sample_keeps_its_guess_and_its_mates(gradient: Gradient) -> None:
    cell, (x, _) = Cell(), data()
    clean = run(cell, x, gradient)
    bad = x.clone()
    bad[1] = torch.nan
    found = gradient.solve(lambda z: cell(z, bad), torch.zeros_like(x), Anderson(), steps=60)
    assert found.codes.tolist() == [Code.CONVERGED, Code.NOT_FINITE, Code.CONVERGED]
    assert torch.equal(found.z[1], torch.zeros(6, dtype=F64))
    assert torch.equal(found.z[[0, 2]], clean[[0, 2]])


def test_implicit_under_autocast() -> None:
    # the backward pass runs the update again and must do so in the forward's precision
    layer = nn.Linear(6, 6)
    nn.init.eye_(layer.weight)
    x = torch.randn(2, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x)  # bfloat16, captured by the update
        assert half.dtype == torch.bfloat16
        found = Implicit().solve(
            lambda z: 0.5 * torch.tanh(nn.functional.linear(half, layer.weight).float() + z),
            torch.zeros(2, 6),
            Anderson(),
            steps=20,
        )
    found.z.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()


def test_names_and_bad_settings() -> None:
    assert isinstance(as_gradient("phantom"), Phantom)
    assert isinstance(as_gradient("implicit"), Implicit)
    assert isinstance(as_gradient("unrolled"), Unrolled)
    mine = Phantom(steps=7)
    assert as_gradient(mine) is mine
    with pytest.raises(LSEError, match="Did you mean 'implicit'"):
        as_gradient("implict")
    with pytest.raises(LSEError, match="steps must be at least 1"):
        Phantom(steps=0)
    with pytest.raises(LSEError, match="damping"):
        Phantom(damping=0.0)
    with pytest.raises(LSEError, match="steps must be at least 1"):
        Implicit(steps=0)
