"""The one-dimensional group: laws found by hypothesis, evaluation and slopes against plain numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lse_core import MonotoneMap
from lse_core.errors import DTypeError, ShapeError, WarpError
from lse_core.monotone import bound_log_slopes, ramp, uniform_basis, uniform_knots

# 200 examples of every law, the same ones each time
LAWS = settings(max_examples=200, derandomize=True, deadline=None)
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
RATIO = 20.0  # slopes within [1/20, 20]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


@st.composite
def maps(draw: st.DrawFn, ratio: float = RATIO) -> tuple[np.ndarray, np.ndarray]:
    """Knots and values of one map with uneven segments and slopes within [1/ratio, ratio]."""
    n = draw(st.integers(1, 12))
    numbers = st.floats(0.0, 1.0, allow_subnormal=False)
    gaps = 0.02 + np.array(draw(st.lists(numbers, min_size=n, max_size=n)))
    # slopes spread over a factor of `ratio` at most; their mean is 1, so each is within the bounds
    slopes = ratio ** np.array(draw(st.lists(numbers, min_size=n, max_size=n)))
    x = np.concatenate([[0.0], np.cumsum(gaps)])
    y = np.concatenate([[0.0], np.cumsum(gaps * slopes)])
    return x / x[-1], y / y[-1]


def build(pair: tuple[np.ndarray, np.ndarray], dtype: torch.dtype = torch.float64) -> MonotoneMap:
    knots, values = (torch.from_numpy(a).to(dtype).unsqueeze(0) for a in pair)
    return MonotoneMap(knots, values)


def exactly(m: MonotoneMap, u: np.ndarray) -> np.ndarray:
    """The map at `u` by numpy in float64: rounding of the evaluation is not what the laws are about."""
    return np.interp(u, m.knots[0].double().numpy(), m.values[0].double().numpy())


def points(*among: MonotoneMap) -> np.ndarray:
    """A grid and every knot: two piecewise-linear maps differ most at a knot of either."""
    return np.concatenate([np.linspace(0, 1, 501), *[m.knots[0].double().numpy() for m in among]])


def apart(a: MonotoneMap, b: MonotoneMap) -> float:
    u = points(a, b)
    return float(np.abs(exactly(a, u) - exactly(b, u)).max())


def graphs_apart(a: MonotoneMap, b: MonotoneMap) -> float:
    """How far a's graph is from b's, along whichever axis is closer.

    On a steep segment of slope s a knot that is off by one float moves the value by s floats; the
    graph itself is as good as ever, its inverse shows it.
    """
    u = points(a, b)
    vertical = np.abs(exactly(a, u) - exactly(b, u))
    horizontal = np.abs(exactly(~a, exactly(b, u)) - u)
    return float(np.minimum(vertical, horizontal).max())


# the laws ---------------------------------------------------------------------------------------


@DTYPES
@LAWS
@given(pair=maps(), segments=st.integers(1, 9))
def test_identity_is_neutral_on_both_sides(pair: tuple, segments: int, dtype: torch.dtype) -> None:
    m = build(pair, dtype)
    e = MonotoneMap.identity(1, segments, dtype=dtype)
    assert apart(m @ e, m) <= TOLERANCE[dtype]
    assert apart(e @ m, m) <= TOLERANCE[dtype]


@DTYPES
@LAWS
@given(pair=maps())
def test_inverse_undoes_on_both_sides(pair: tuple, dtype: torch.dtype) -> None:
    m = build(pair, dtype)
    e = MonotoneMap.identity(1, dtype=dtype)
    assert apart(m @ ~m, e) <= TOLERANCE[dtype]
    assert apart(~m @ m, e) <= TOLERANCE[dtype]
    assert torch.equal((~~m).values, m.values)


@DTYPES
@LAWS
@given(pairs=st.tuples(*[maps(RATIO ** (1 / 3))] * 3))
def test_composition_is_associative(pairs: tuple, dtype: torch.dtype) -> None:
    a, b, c = (build(p, dtype) for p in pairs)
    assert apart((a @ b) @ c, a @ (b @ c)) <= TOLERANCE[dtype]


@DTYPES
@LAWS
@given(pairs=st.tuples(maps(), maps(), maps()))
def test_composition_of_steep_maps_is_associative_as_a_graph(pairs: tuple, dtype: torch.dtype) -> None:
    a, b, c = (build(p, dtype) for p in pairs)  # products reach slopes of 8000
    assert graphs_apart((a @ b) @ c, a @ (b @ c)) <= TOLERANCE[dtype]


@DTYPES
@LAWS
@given(pairs=st.tuples(maps(), maps()))
def test_composition_is_closed_and_is_what_composing_means(pairs: tuple, dtype: torch.dtype) -> None:
    a, b = (build(p, dtype) for p in pairs)
    m = a @ b
    for t in (m.knots[0], m.values[0]):
        assert float(t[0]) == 0.0
        assert float(t[-1]) == 1.0
        assert bool((t.diff() >= 0).all())
    assert bool((m.slopes > 0).all())
    u = points(m)
    reference = np.interp(exactly(b, u), a.knots[0].double().numpy(), a.values[0].double().numpy())
    # b(u) is known to a float, and a multiplies that by its slope
    vertical = np.abs(exactly(m, u) - reference)
    horizontal = np.abs(exactly(~m, reference) - u)
    assert np.minimum(vertical, horizontal).max() <= TOLERANCE[dtype]


@LAWS
@given(pairs=st.tuples(maps(), maps()))
def test_inverse_of_a_product_is_the_product_of_inverses_reversed(pairs: tuple) -> None:
    a, b = (build(p) for p in pairs)
    assert graphs_apart(~(a @ b), ~b @ ~a) <= 1e-12


# evaluation -------------------------------------------------------------------------------------


@LAWS
@given(pair=maps())
def test_evaluation_is_linear_interpolation(pair: tuple) -> None:
    m = build(pair)
    u = points(m)
    assert_allclose(m(torch.from_numpy(u))[0].numpy(), exactly(m, u), atol=1e-13)


@LAWS
@given(pairs=st.tuples(maps(), maps()))
def test_searching_and_summing_give_one_value(pairs: tuple) -> None:
    """Without a gradient the segment is searched for; composed maps have segments of no width."""
    a, b = (build(p) for p in pairs)
    for m in (a, a @ ~a, a @ b, (a @ b) @ ~b):
        u = torch.from_numpy(np.concatenate([points(m), [-0.3, 1.2]]))
        assert_allclose(m(u).numpy(), m(u.clone().requires_grad_()).detach().numpy(), rtol=1e-9, atol=1e-11)


@LAWS
@given(pair=maps())
def test_slope_is_the_mean_of_both_sides(pair: tuple) -> None:
    m = build(pair)
    h = 1e-7
    # at a knot the central difference is the mean of the two sides; elsewhere it must not straddle one
    knots, middles = m.knots[0], (m.knots[0, 1:] + m.knots[0, :-1]) / 2
    for u in (knots, middles):
        expected = (m(u + h) - m(u - h)) / (2 * h)
        assert_allclose(m.slope(u).numpy(), expected.numpy(), rtol=1e-5)


def test_slope_at_an_end_is_the_end_segments() -> None:
    m = MonotoneMap.from_log_slopes(torch.tensor([[0.5, -0.5]], dtype=torch.float64))
    assert_allclose(m.slope(torch.tensor([0.0, 1.0]).double()).numpy(), m.slopes.numpy(), rtol=1e-12)


@pytest.mark.parametrize("where", ["knots", "inside", "ends"])
def test_autograd_gives_the_slope(where: str) -> None:
    torch.manual_seed(0)
    m = MonotoneMap.from_logits(torch.randn(3, 4, dtype=torch.float64), 20.0)
    u = {"knots": m.knots[:, 1:-1], "inside": m.knots[:, 1:] - 0.1, "ends": m.knots[:, [0, -1]]}[where]
    u = u.clone().requires_grad_()
    (slope,) = torch.autograd.grad(m(u).sum(), u)
    assert_allclose(slope.numpy(), m.slope(u).detach().numpy(), rtol=1e-12)


def test_gradients_match_finite_differences() -> None:
    torch.manual_seed(0)
    z = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    u = torch.rand(1, 2, dtype=torch.float64, requires_grad=True)  # off the knots, where it is smooth

    def value(z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return MonotoneMap.from_logits(z)(u)

    def inverse(z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return (~MonotoneMap.from_logits(z))(u)

    def product(z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        m = MonotoneMap.from_logits(z)
        return (m @ m)(u)

    for f in (value, inverse, product):
        assert torch.autograd.gradcheck(f, (z, u))
        assert torch.autograd.gradgradcheck(f, (z, u))


def test_gradient_to_the_logits_at_the_identity() -> None:
    z = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    u = torch.linspace(0, 1, 9, dtype=torch.float64)  # every knot among them
    # the map is smooth in z at fixed u only off the knots; at knots central differences still hold
    jacobian = torch.autograd.functional.jacobian(lambda z: MonotoneMap.from_logits(z)(u)[0], z)[:, 0]
    h = 1e-6
    for i in range(4):
        step = torch.zeros_like(z)
        step[0, i] = h
        up, down = (MonotoneMap.from_logits(z + s)(u)[0] for s in (step, -step))
        assert_allclose(jacobian[:, i].numpy(), ((up - down) / (2 * h)).detach().numpy(), atol=1e-9)
    assert float(jacobian[1:-1].abs().max(dim=1).values.min()) > 0.0


def test_ramp_has_half_a_derivative_at_its_kinks() -> None:
    t = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    ramp(t).sum().backward()
    assert ramp(t).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert t.grad is not None
    assert t.grad.tolist() == [0.0, 0.5, 1.0, 0.5, 0.0]


def test_beyond_the_ends_the_end_segments_go_on() -> None:
    m = MonotoneMap(torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[0.0, 0.2, 1.0]]))
    assert_allclose(m(torch.tensor([-1.0, 2.0])).numpy(), [[-0.4, 2.6]], rtol=1e-6)


# construction -----------------------------------------------------------------------------------


@LAWS
@given(
    z=st.lists(st.floats(-50, 50), min_size=1, max_size=16),
    ratio=st.floats(1.01, 4.0),
)
def test_slopes_from_logits_are_bounded_whatever_the_logits(z: list[float], ratio: float) -> None:
    m = MonotoneMap.from_logits(torch.tensor([z], dtype=torch.float64), ratio)
    assert float(m.slopes.min()) >= 1 / ratio - 1e-12
    assert float(m.slopes.max()) <= ratio + 1e-12


@LAWS
@given(w=st.lists(st.floats(-9, 9), min_size=1, max_size=16), ratio=st.floats(1.01, 20.0))
def test_bounded_log_slopes_bound_slopes_and_keep_what_is_inside(w: list[float], ratio: float) -> None:
    bounded = bound_log_slopes(torch.tensor([w], dtype=torch.float64), ratio)
    slopes = MonotoneMap.from_log_slopes(bounded).slopes
    assert float(slopes.min()) >= 1 / ratio - 1e-9
    assert float(slopes.max()) <= ratio * (1 + 1e-9)
    inside = bounded - bounded.mean()
    if float(inside.abs().max()) <= 0.5 * np.log(ratio):
        assert_allclose(bound_log_slopes(inside, ratio).numpy(), inside.numpy(), atol=1e-12)


def test_log_slopes_go_round() -> None:
    w = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    back = MonotoneMap.from_log_slopes(w).log_slopes
    constant = w - back
    assert_allclose(constant.numpy(), constant.mean(1, keepdim=True).expand_as(w).numpy(), atol=1e-12)


def test_zero_logits_give_the_identity() -> None:
    m = MonotoneMap.from_logits(torch.zeros(2, 5))
    u = torch.rand(2, 11)
    assert_allclose(m(u).numpy(), u.numpy(), atol=1e-6)
    assert torch.allclose(m.slopes, torch.ones(2, 5))


def test_uniform_basis_is_the_map_as_a_matrix() -> None:
    w = torch.randn(1, 5, dtype=torch.float64)
    u = torch.linspace(0, 1, 23, dtype=torch.float64)
    assert_allclose(
        (uniform_basis(u, 5) * w.softmax(-1)).sum(-1).numpy(),
        MonotoneMap.from_log_slopes(w)(u)[0].numpy(),
        atol=1e-13,
    )
    assert uniform_knots(4, dtype=torch.float64).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


@LAWS
@given(pair=maps(), segments=st.integers(1, 64))
def test_resampling_is_exact_at_the_knots_and_within_its_bound_between(pair: tuple, segments: int) -> None:
    m = build(pair)
    coarse = m.resample(segments)
    u = np.linspace(0, 1, segments + 1)
    assert_allclose(exactly(coarse, u), exactly(m, u), atol=1e-12)
    bound = float(m.slopes.max() - m.slopes.min()) / (4 * segments)
    assert apart(coarse, m) <= bound + 1e-12


# batches ----------------------------------------------------------------------------------------


def test_one_map_combines_with_a_batch() -> None:
    one, many = MonotoneMap.from_logits(torch.randn(1, 3)), MonotoneMap.from_logits(torch.randn(4, 5))
    u = torch.rand(4, 9)
    assert torch.allclose((one @ many)(u), one.broadcast(4)(many(u)), atol=1e-6)
    assert torch.allclose((many @ one)(u), many(one(u)), atol=1e-6)
    assert len(many[1:3]) == 2
    assert len(many[0]) == 1
    assert torch.equal(many[[2, 0]].values, many.values[[2, 0]])


def test_no_map_depends_on_its_batch_mates() -> None:
    a, b = MonotoneMap.from_logits(torch.randn(3, 4)), MonotoneMap.from_logits(torch.randn(3, 4))
    u = torch.rand(3, 6)
    assert torch.equal((a @ b)(u)[1:2], (a[1] @ b[1])(u[1:2]))


def test_repr_says_size_slopes_dtype_and_device() -> None:
    text = repr(MonotoneMap.identity(2, 3))
    for part in ("batch=2", "segments=3", "slopes 1 to 1", "float32", "cpu"):
        assert part in text


# bad input --------------------------------------------------------------------------------------


def tensors(*rows: list[float]) -> list[torch.Tensor]:
    return [torch.tensor([row]) for row in rows]


@pytest.mark.parametrize(
    ("knots", "values", "text"),
    [
        ([0.0, 0.6, 0.5, 1.0], [0.0, 0.3, 0.6, 1.0], "knots of map 0 do not increase"),
        ([0.0, 0.3, 0.6, 1.0], [0.0, 0.5, 0.5, 1.0], "values of map 0 do not increase"),  # a slope of zero
        ([0.0, 0.5, 1.0], [0.0, float("nan"), 1.0], "values of map 0 do not increase"),
        ([0.1, 0.5, 1.0], [0.0, 0.5, 1.0], "knots must start at 0 and end at 1"),
        ([0.0, 0.5, 1.0], [0.0, 0.5, 0.9], "values must start at 0 and end at 1"),
    ],
)
def test_what_is_no_monotone_map_is_refused(knots: list[float], values: list[float], text: str) -> None:
    with pytest.raises(WarpError, match=text):
        MonotoneMap(*tensors(knots, values))


def test_the_map_at_fault_is_named() -> None:
    good = torch.tensor([[0.0, 0.5, 1.0]]).repeat(3, 1)
    bad = good.clone()
    bad[2, 1] = 1.5
    with pytest.raises(WarpError, match="map 2"):
        MonotoneMap(good, bad)


def test_shapes_and_dtypes_that_do_not_fit_are_refused() -> None:
    k = torch.tensor([[0.0, 1.0]])
    with pytest.raises(ShapeError, match=r"\(batch, K >= 2\)"):
        MonotoneMap(k, torch.tensor([[0.0, 0.5, 1.0]]))
    with pytest.raises(ShapeError, match=r"\(batch, K >= 2\)"):
        MonotoneMap(k[:, :1], k[:, :1])
    with pytest.raises(DTypeError, match="one floating dtype"):
        MonotoneMap(k, k.double())
    with pytest.raises(DTypeError, match="one floating dtype"):
        MonotoneMap(k.long(), k.long())
    with pytest.raises(ShapeError, match=r"\(batch, segments\)"):
        MonotoneMap.from_log_slopes(torch.zeros(3))
    with pytest.raises(WarpError, match="ratio must exceed 1"):
        MonotoneMap.from_logits(torch.zeros(1, 3), ratio=1.0)
    with pytest.raises(ShapeError, match="at least one segment"):
        MonotoneMap.identity().resample(0)
    with pytest.raises(ShapeError, match="points must be"):
        MonotoneMap.identity(3)(torch.zeros(2, 5))
    with pytest.raises(ShapeError, match="MonotoneMap: a batch of 2 does not fit a batch of 3"):
        MonotoneMap.identity(3) @ MonotoneMap.identity(2)
    with pytest.raises(TypeError):
        MonotoneMap.identity() @ 3  # type: ignore[operator]
