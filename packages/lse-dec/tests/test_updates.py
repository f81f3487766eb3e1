"""Update rules: bounds, fixed points, and the composition they promise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lse_core.errors import LSEError
from lse_core.monotone import MonotoneMap, bound_log_slopes
from lse_dec.updates import FREE, Absolute, Compose, Residual, UpdateRule, smooth_bound

RULES = {"residual": Residual(), "compose": Compose(), "absolute": Absolute()}
F64 = torch.float64


def state(seed: int, segments: int, ratio: float, batch: int = 3, dtype: torch.dtype = F64) -> Tensor:
    """Log-slopes well inside the bound, so that no clamp acts."""
    w = torch.randn(batch, 2, segments, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return bound_log_slopes(0.1 * math.log(ratio) * torch.tanh(w), ratio)


cases = given(
    seed=st.integers(0, 10_000),
    segments=st.integers(2, 32),
    ratio=st.floats(1.05, 4.0),
    size=st.sampled_from([0.0, 0.01, 1.0, 30.0, 1e6]),
    name=st.sampled_from(sorted(RULES)),
)


@settings(max_examples=80, deadline=None)
@cases
def test_slopes_stay_within_the_ratio(seed: int, segments: int, ratio: float, size: float, name: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = state(seed, segments, ratio, dtype=torch.float32)
    for _ in range(5):  # the bound must hold after many steps, not only after one
        proposal = size * torch.randn(w.shape, generator=generator)
        w = RULES[name](w, proposal, ratio)
        assert w.isfinite().all()
        assert (w.abs() <= 0.5 * math.log(ratio) + 1e-6).all()
        slopes = MonotoneMap.from_log_slopes(w.flatten(0, 1)).slopes
        assert (slopes <= ratio * (1 + 1e-4)).all()
        assert (slopes >= (1 - 1e-4) / ratio).all()


@pytest.mark.parametrize("cls", [Residual, Compose])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), segments=st.integers(2, 32), ratio=st.floats(1.05, 4.0))
def test_a_zero_proposal_moves_nothing_within_the_bound(
    cls: type[Residual] | type[Compose], seed: int, segments: int, ratio: float
) -> None:
    w = state(seed, segments, ratio)
    moved = cls(pull=0.0)(w, torch.zeros_like(w), ratio)
    assert (moved - w).abs().max() < 1e-12


@pytest.mark.parametrize("cls", [Residual, Compose])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), segments=st.integers(2, 32), ratio=st.floats(1.05, 4.0))
def test_zero_proposals_settle_at_rest(
    cls: type[Residual] | type[Compose], seed: int, segments: int, ratio: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rest = 3.0 * torch.randn(1, 2, segments, generator=generator, dtype=F64)  # far beyond the bound, too
    rest = rest - rest.mean(-1, keepdim=True)
    rule, zero = cls(pull=0.2), torch.zeros(3, 2, segments, dtype=F64)
    at = smooth_bound(rest, ratio)
    assert (rule(at.expand_as(zero), zero, ratio, rest) - at).abs().max() < 1e-9  # exactly kept,
    for goal, place in ((rest, at), (None, torch.zeros_like(at))):
        w = state(seed, segments, ratio)
        for _ in range(600):
            w = rule(w, zero, ratio, goal)
        assert (w - place).abs().max() < 1e-6  # and found from elsewhere


def test_the_bound_is_smooth_and_changes_nothing_well_within() -> None:
    half = 0.5 * math.log(4.0)
    w = torch.linspace(-3.0 * half, 3.0 * half, 61, dtype=F64)  # centred already
    bent = smooth_bound(w, 4.0)
    inside = w.abs() <= FREE * half
    assert (bent[inside] - w[inside]).abs().max() < 1e-12
    assert ((bent.abs() > FREE * half) & (bent.abs() <= half))[~inside].all()
    assert (bent.diff() > 0).all()
    assert (bent.diff() <= w.diff() + 1e-12).all()  # Lipschitz constant 1
    fine = torch.linspace(-2.0 * half, 2.0 * half, 4001, dtype=F64)
    assert smooth_bound(fine, 4.0).diff().diff().abs().max() < 1e-5  # no kink where the bend begins


@pytest.mark.parametrize("cls", [Residual, Compose])
def test_where_the_bound_holds_the_gradient_still_passes(cls: type[Residual] | type[Compose]) -> None:
    w = smooth_bound(torch.tensor([[[3.0, -3.0, 3.0, -3.0]] * 2], dtype=F64), 2.0)
    proposal = torch.zeros_like(w, requires_grad=True)
    (cls()(w, proposal, 2.0)[..., 0]).sum().backward()
    assert proposal.grad is not None
    assert proposal.grad.abs().amax() > 0.02


@pytest.mark.parametrize("name", ["residual", "compose"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), segments=st.integers(2, 16))
def test_a_fixed_point_asks_for_no_change(name: str, seed: int, segments: int) -> None:
    # a proposal that is not constant moves the map: nothing but zero change is a fixed point
    w = state(seed, segments, 2.0)
    proposal = torch.randn(w.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=F64)
    proposal = proposal - proposal.mean(-1, keepdim=True)
    moved = RULES[name](w, 0.1 * proposal, 4.0)
    assert (moved - w).abs().amax((1, 2)).min() > 1e-4


def test_absolute_ignores_the_state() -> None:
    proposal = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    a = Absolute()(state(1, 8, 2.0, batch=2), proposal, 2.0)
    b = Absolute()(state(2, 8, 2.0, batch=2), proposal, 2.0)
    assert torch.equal(a, b)
    assert a.abs().max() > 0.01


def test_residual_is_equation_16() -> None:
    w = state(1, 8, 4.0)
    proposal = 0.3 * torch.randn(w.shape, generator=torch.Generator().manual_seed(2), dtype=F64)
    rule = Residual(max_step=0.2, pull=0.1)
    expected = 0.9 * w - rule.change(proposal)
    expected = expected - expected.mean(-1, keepdim=True)
    assert (rule(w, proposal, 4.0) - expected).abs().max() < 1e-12


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), segments=st.integers(2, 24), size=st.floats(0.0, 0.6))
def test_compose_is_the_group_product_at_the_knots(seed: int, segments: int, size: float) -> None:
    w = state(seed, segments, 2.0)
    proposal = size * torch.randn(w.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=F64)
    rule = Compose(max_step=0.1, pull=0.0)
    new = rule(w, proposal, 4.0)
    for axis in (0, 1):
        mine = MonotoneMap.from_log_slopes(w[:, axis])
        delta = MonotoneMap.from_log_slopes(rule.change(proposal)[:, axis])
        exact = (mine @ delta).resample(segments)  # merged knots, then Eq. 12's family
        ours = MonotoneMap.from_log_slopes(new[:, axis])
        assert (ours.values - exact.values).abs().max() < 1e-12


@pytest.mark.parametrize("rule", [Residual(), Compose()])
def test_a_step_is_bounded(rule: Residual | Compose) -> None:
    assert rule.change(torch.tensor([1e9, -1e9])).abs().max() <= rule.max_step


@pytest.mark.parametrize("name", RULES)
def test_gradient_reaches_the_proposal_at_the_identity(name: str) -> None:
    rule: UpdateRule = RULES[name]
    proposal = torch.zeros(1, 2, 6, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: rule(torch.zeros(1, 2, 6, dtype=F64), p, 2.0), (proposal,))


@pytest.mark.parametrize("cls", [Residual, Compose])
def test_settings_refused(cls: type[Residual] | type[Compose]) -> None:
    with pytest.raises(LSEError, match="max_step must be above 0"):
        cls(max_step=0.0)
    for pull in (-0.1, 1.0, math.nan):
        with pytest.raises(LSEError, match="pull must be at least 0 and below 1"):
            cls(pull=pull)
