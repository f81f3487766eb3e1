"""Bounds against the largest errors that can be found: the worst signal, and the worst weight, by SVD."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lse_core.errors import LSEError
from lse_core.resample import scale
from lse_core.separable import SeparableWarp
from lse_soft.bounds import error_bound, scaling_bound, vacuous_beyond
from lse_soft.generators import growth, lorentz_generators, rotation_generator, so3_generators
from lse_soft.gram import gram_polynomials
from lse_soft.groups import SO3, Cyclic, Lorentz
from lse_soft.groups.cyclic import quarter_turn
from lse_soft.spectra import DenseSpectrum, NormalForm, NormalSpectrum
from lse_soft.spectra.dense import equivariance_gram, functional_gram
from lse_soft.thresholds import factors

ROUNDING = 1 + 1e-9
seeds = st.integers(0, 2**31)
numbers = st.floats(-3, 3)
softness = st.floats(0.2, 2.6)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stacked(j, vectors, scalars):
    return torch.block_diag(*[j] * vectors, *[torch.zeros(1, 1).double()] * scalars)


def worst_signal(matrix):
    """max over x of ||M x|| / ||x||."""
    return float(torch.linalg.matrix_norm(matrix, 2))


def log_of(generators, t, features):
    return stacked(sum(c * g for c, g in zip(t, generators, strict=True)), *features)


@settings(max_examples=400, deadline=None)
@given(
    seed=seeds,
    t=st.tuples(numbers, numbers, numbers),
    b=softness,
    threshold=st.sampled_from(["hard", "cosine"]),
)
def test_so3_errors_stay_below_the_bound(seed, t, b, threshold):
    outputs, inputs = (1, 2), (2, 1)
    spectrum = SO3().vectors(outputs, inputs)
    w = spectrum.filter(lambda s: factors(s, b, threshold))(draw(seed, 5, 7))
    x, y = (log_of(so3_generators(), t, f) for f in (inputs, outputs))
    error = worst_signal(w @ torch.matrix_exp(x) - torch.matrix_exp(y) @ w)
    distance, norm = math.hypot(*t), float(w.norm())
    kappa = spectrum.kappa(w)
    assert kappa <= b * ROUNDING
    assert error <= error_bound(kappa, distance) * norm * ROUNDING + 1e-12


@settings(max_examples=400, deadline=None)
@given(
    seed=seeds,
    t=st.tuples(*[st.floats(-1, 1)] * 6),
    b=st.floats(0.3, 3.2),
    features=st.sampled_from([((1, 1), (1, 1)), ((0, 2), (2, 0)), ((2, 0), (1, 1))]),
)
def test_lorentz_errors_stay_below_the_bound_times_the_growth(seed, t, b, features):
    outputs, inputs = features
    spectrum = Lorentz().vectors(outputs, inputs)
    w = draw(seed, 4 * outputs[0] + outputs[1], 4 * inputs[0] + inputs[1])
    w = spectrum.filter(lambda s: factors(s, b, "hard"))(w)
    x, y = (log_of(lorentz_generators(), t, f) for f in (inputs, outputs))
    error = worst_signal(w @ torch.matrix_exp(x) - torch.matrix_exp(y) @ w)
    allowed = error_bound(spectrum.kappa(w), math.hypot(*t), growth(x, y)) * float(w.norm())
    assert error <= allowed * ROUNDING + 1e-12
    assert spectrum.kappa(w) <= b * ROUNDING


@settings(max_examples=200, deadline=None)
@given(seed=seeds, steps=st.integers(1, 3), b=softness, order=st.sampled_from([2, 4]))
def test_cyclic_errors_stay_below_b_times_the_word_length(seed, steps, b, order):
    side = 3
    group = Cyclic(order)
    turn = torch.linalg.matrix_power(quarter_turn(side), steps * 4 // order)
    distance = min(steps % order, order - steps % order)
    keep = lambda s: factors(s, b, "hard")  # noqa: E731
    w = group.functional((side, side)).filter(keep)(draw(seed, 1, side * side))
    one = torch.eye(side * side).double()
    error = worst_signal(w @ (turn - one))
    assert error <= error_bound(b, distance) * float(w.norm()) * ROUNDING + 1e-12
    m = group.mixing((side, side), (side, side)).filter(keep)(draw(seed, side**2, side**2))
    error = worst_signal(m @ turn - turn @ m)
    assert error <= error_bound(b, distance) * float(m.norm()) * ROUNDING + 1e-12


@settings(max_examples=30, deadline=None)
@given(seed=seeds, t=st.floats(0.01, 2), b=st.floats(0.5, 6))
def test_the_worst_weight_under_one_generator(seed, t, b):
    """The largest error over all weights in the range of P_b, not only random ones."""
    a = draw(seed, 6, 6)
    a = a - a.T
    functional = DenseSpectrum(functional_gram([a]))
    p = functional.vectors * factors(functional.values(), b, "hard")
    one = torch.eye(6).double()
    assert worst_signal(p.T @ (torch.matrix_exp(t * a) - one)) <= b * t * ROUNDING
    whole = DenseSpectrum(equivariance_gram([a], [a]))
    p = whole.vectors * factors(whole.values(), b, "hard")
    g = torch.matrix_exp(t * a)
    moved = torch.kron(one, g.T.contiguous()) - torch.kron(g, one)  # W to W g - g W, row by row
    assert worst_signal(moved @ p) <= b * t * ROUNDING


def test_the_bound_is_tight_for_single_modes():
    a = rotation_generator((5, 5))
    functional = DenseSpectrum(functional_gram([a]))
    spectrum = NormalSpectrum(NormalForm.skew(a), NormalForm.skew(a))
    one, t = torch.eye(25).double(), 0.1
    g = torch.matrix_exp(t * a)
    sigma, w = float(functional.values()[9]), functional.vectors[:, 9:10].T
    assert worst_signal(w @ (g - one)) >= 0.95 * error_bound(sigma, t)
    form = NormalForm.skew(a)
    i, j = 0, 4  # planes of different frequency: the linear part of their block is one mode
    w = torch.outer(form.basis[:, i], form.basis[:, j])
    w = w + torch.outer(form.basis[:, form.partner[i]], form.basis[:, form.partner[j]])
    kappa = spectrum.kappa(w)
    assert kappa == pytest.approx(abs(float(form.beta[i] - form.beta[j])), rel=1e-9)
    assert float((w @ g - g @ w).norm()) >= 0.95 * error_bound(kappa, t) * float(w.norm())


def test_the_worst_element_of_a_stacked_group():
    """Gradient ascent over rotations for the worst weight: close to the bound, never above it."""
    spectrum = SO3().vectors((1, 0), (1, 0))
    w = spectrum.filter(lambda s: factors(s, 2.0, "hard"))(draw(0, 3, 3))
    generators = so3_generators()
    t = draw(1, 3).requires_grad_()
    best = 0.0
    for _ in range(60):
        direction = 0.5 * t / t.norm()
        g = torch.matrix_exp(sum(c * j for c, j in zip(direction, generators, strict=True)))
        error = torch.linalg.matrix_norm(w @ g - g @ w, 2)
        (step,) = torch.autograd.grad(error, t)
        best = max(best, float(error.detach()))
        t = (t + step).detach().requires_grad_()
    allowed = error_bound(spectrum.kappa(w), 0.5) * float(w.detach().norm())
    assert 0.3 * allowed < best <= allowed * ROUNDING


def test_growth_is_the_logarithmic_mean():
    """(e^mu - 1) / mu with the larger mu fails for equivariant maps; this is the case that shows it."""
    x = torch.diag(torch.tensor([1.0, 0.9], dtype=torch.float64))
    w = torch.zeros(2, 2, dtype=torch.float64)
    w[1, 0] = 1.0
    kappa = DenseSpectrum(equivariance_gram([x], [x])).kappa(w.reshape(1, -1))
    error = worst_signal(w @ torch.matrix_exp(x) - torch.matrix_exp(x) @ w)
    assert error > kappa * (math.e - 1)
    assert 0.9 * kappa * growth(x, x) < error <= kappa * growth(x, x)
    assert growth(x) == pytest.approx(math.e - 1)
    # where both sides stretch by different amounts it is reached exactly
    x, y = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 0.8, dtype=torch.float64)
    assert 0.2 * growth(x, y) == pytest.approx(math.e - math.exp(0.8))
    assert growth(y, x) == pytest.approx(growth(x, y))
    assert growth(*[torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()] * 2) == pytest.approx(1.0)
    with pytest.raises(LSEError, match="square"):
        growth(torch.zeros(2, 3))


def test_without_the_growth_boosts_break_the_bound():
    boost = 2.0 * lorentz_generators()[3]
    spectrum = Lorentz().vectors((0, 1), (1, 0))
    w = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    error = worst_signal(w @ torch.matrix_exp(boost) - w)
    plain = error_bound(spectrum.kappa(w), 2.0) * float(w.norm())
    assert error > plain
    assert error <= plain * growth(boost, torch.zeros(1, 1)) * ROUNDING


@pytest.mark.parametrize("b", [2.5, 5.0])
def test_arrays_under_local_scaling(b):
    """Position embeddings under the real `lse_core.scale`, for the worst array of each warp."""
    n = 48
    vectors, sigma = gram_polynomials(n)
    both = (sigma.square().unsqueeze(1) + sigma.square()).sqrt()
    kept = [(i, j) for i, j in (both < b).nonzero().tolist()]
    basis = torch.stack([torch.outer(vectors[:, i], vectors[:, j]) for i, j in kept])
    warps = SeparableWarp.random(24, 4, 3.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    allowed = scaling_bound(b, warps)
    ratios = []
    for k in range(len(warps)):
        moved = scale(basis.unsqueeze(1), warps[k])[:, 0] - basis
        error = worst_signal(moved.flatten(1))
        ratios.append(error / float(allowed[k]))
    # between pixels of different conventions the two differ by the order of a pixel
    assert max(ratios) <= 1.02
    assert max(ratios) > 0.3


def test_vacuous_beyond():
    assert vacuous_beyond(2 / math.pi) == pytest.approx(math.pi)
    assert math.isinf(vacuous_beyond(0.0))
