"""The two-dimensional group: the laws on points, and the random warps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lse_core import LSEError, MonotoneMap, SeparableWarp
from lse_core.errors import DTypeError, ShapeError, WarpError
from lse_core.random import random_log_slopes

LAWS = settings(max_examples=200, derandomize=True, deadline=None)


def draw(seed: int, segments: int, ratio: float, dtype: torch.dtype = torch.float64) -> SeparableWarp:
    generator = torch.Generator().manual_seed(seed)
    return SeparableWarp.random(2, segments, ratio, generator=generator, dtype=dtype)


seeds, counts = st.integers(0, 2**31), st.integers(1, 10)


def lattice(dtype: torch.dtype = torch.float64) -> Tensor:
    u = torch.linspace(0, 1, 33, dtype=dtype)
    return torch.stack(torch.meshgrid(u, u, indexing="xy"), dim=-1).reshape(-1, 2)


@LAWS
@given(seed=seeds, a=counts, b=counts, c=counts)
def test_laws_hold_on_the_square(seed: int, a: int, b: int, c: int) -> None:
    u, v, w = (draw(seed + i, n, 20.0 ** (1 / 3)) for i, n in enumerate((a, b, c)))
    p = lattice()
    e = SeparableWarp.identity(2, dtype=torch.float64)
    for got, want in (
        ((u @ v) @ w, u @ (v @ w)),
        (u @ ~u, e),
        (~u @ u, e),
        (u @ e, u),
        (e @ u, u),
        (~(u @ v), ~v @ ~u),
    ):
        assert float((got(p) - want(p)).abs().max()) <= 1e-12
    assert float(((u @ v)(p) - u(v(p))).abs().max()) <= 1e-12


@LAWS
@given(seed=seeds, a=counts, b=counts)
def test_float32_keeps_six_digits(seed: int, a: int, b: int) -> None:
    u, v = (draw(seed + i, n, 4.0, torch.float32) for i, n in enumerate((a, b)))
    p = lattice()
    exact = u.to(torch.float64) @ v.to(torch.float64)
    assert float(((u @ v).to(torch.float64)(p) - exact(p)).abs().max()) <= 1e-6
    assert float(((u @ ~u).to(torch.float64)(p) - p).abs().max()) <= 1e-6


def test_axes_are_x_first_and_apart() -> None:
    w = SeparableWarp.from_log_slopes(torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]))
    p = torch.tensor([[0.5, 0.5]])
    q = w(p)[0, 0]
    assert float(q[0]) > 0.8
    assert float(q[1]) == pytest.approx(0.5)


def test_jacobians_are_diagonal_positive_and_commute() -> None:
    """What Lemma 2 asks of a group, by autograd rather than by construction."""
    u, v = draw(0, 4, 4.0), draw(1, 3, 4.0)
    p = torch.rand(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    jac = [torch.autograd.functional.jacobian(lambda q, w=w: w(q)[0].sum(0), p[:1]) for w in (u, v)]
    a, b = (j.reshape(2, 2) for j in jac)
    for j in (a, b):
        assert torch.equal(j, torch.diag(j.diag()))
        assert bool((j.diag() > 0).all())
    assert torch.allclose(a @ b, b @ a)


def test_axes_of_different_batches_are_made_equal() -> None:
    w = SeparableWarp(MonotoneMap.identity(1), MonotoneMap.from_logits(torch.randn(3, 4)))
    assert w.batch == w.x.batch == w.y.batch == 3
    assert w[1].batch == 1
    assert len(w[:2]) == 2
    assert w.resample(5).x.segments == 5
    assert w.to(torch.float64).dtype == torch.float64
    assert (
        not SeparableWarp.from_logits(torch.zeros(1, 2, 3, requires_grad=True))
        .detach()
        .x.values.requires_grad
    )
    assert "SeparableWarp(x=MonotoneMap(batch=3" in repr(w)


def test_random_warps_are_seeded_bounded_and_as_likely_as_their_inverse() -> None:
    a = random_log_slopes(2000, 6, 3.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = random_log_slopes(2000, 6, 3.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(a, b)
    slopes = SeparableWarp.from_log_slopes(a).x.slopes
    assert float(slopes.min()) >= 1 / 3
    assert float(slopes.max()) <= 3
    assert abs(float(a.mean())) < 0.01
    assert float(a.max()) == pytest.approx(math.log(3) / 2, abs=0.01)


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: SeparableWarp.from_log_slopes(torch.zeros(2, 3)), ShapeError),
        (lambda: SeparableWarp.from_logits(torch.zeros(2, 3, 4)), ShapeError),
        (lambda: SeparableWarp(MonotoneMap.identity(2), MonotoneMap.identity(3)), ShapeError),
        (lambda: SeparableWarp.identity(2) @ SeparableWarp.identity(3), ShapeError),
        (lambda: SeparableWarp.identity()(torch.zeros(5, 3)), ShapeError),
        (lambda: SeparableWarp.identity(2).broadcast(3), ShapeError),
        (lambda: SeparableWarp.random(1, 4, 1.0), WarpError),
        (lambda: MonotoneMap(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]]).double()), DTypeError),
    ],
)
def test_bad_input_gets_one_clear_error(build: object, error: type[LSEError]) -> None:
    with pytest.raises(error) as caught:
        build()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, LSEError)
