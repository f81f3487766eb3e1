"""Coupled grids: the equations A26 to A29, folding, the two inverses, the nearest separable warp."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lse_core import GridWarp, MonotoneMap, SeparableWarp, Tokens, scale, unscale
from lse_core.errors import ConvergenceError, DTypeError, LSEError, ShapeError, WarpError

EXAMPLES = settings(max_examples=200, derandomize=True, deadline=None)
F64 = torch.float64


def draw(seed: int, rows: int = 4, cols: int = 5, spread: float = 0.8, batch: int = 2) -> GridWarp:
    g = torch.Generator().manual_seed(seed)
    w_x = spread * torch.rand(batch, rows, cols - 1, generator=g, dtype=F64)
    w_y = spread * torch.rand(batch, cols, rows - 1, generator=g, dtype=F64)
    return GridWarp.from_log_slopes(w_x, w_y)


def points(n: int = 400, seed: int = 0) -> Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)


def naive(nodes: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """A27 along the two rows (A28: columns) around the point, A29 between them."""
    rows, cols = nodes.shape[:2]
    xs, ys = np.linspace(0, 1, cols), np.linspace(0, 1, rows)
    along_rows = [np.interp(x, xs, nodes[i, :, 0]) for i in range(rows)]
    along_columns = [np.interp(y, ys, nodes[:, j, 1]) for j in range(cols)]
    return float(np.interp(y, ys, along_rows)), float(np.interp(x, xs, along_columns))


def test_evaluation_is_the_papers_equations() -> None:
    w = draw(0)
    p = points(50)
    expected = [[naive(nodes, *xy) for xy in p.numpy()] for nodes in w.nodes.numpy()]
    assert np.allclose(w(p).numpy(), expected, atol=1e-12)


def test_lattice_is_evaluation_at_pixels_and_interpolation_of_nodes() -> None:
    w = draw(1)
    x, y = torch.meshgrid(
        torch.linspace(0, 1, 9, dtype=F64), torch.linspace(0, 1, 7, dtype=F64), indexing="xy"
    )
    assert torch.allclose(w.lattice(7, 9).flatten(1, 2), w(torch.stack([x, y], -1).view(-1, 2)), atol=1e-12)
    resized = F.interpolate(w.nodes.permute(0, 3, 1, 2), size=(7, 9), mode="bilinear", align_corners=True)
    assert torch.allclose(w.lattice(7, 9), resized.permute(0, 2, 3, 1), atol=1e-12)


@EXAMPLES
@given(seed=st.integers(0, 2**31), rows=st.integers(2, 7), cols=st.integers(2, 7), ratio=st.floats(1.1, 4.0))
def test_grids_from_logits_are_monotone_and_bounded(seed: int, rows: int, cols: int, ratio: float) -> None:
    g = torch.Generator().manual_seed(seed)
    z_x = 9 * torch.randn(1, rows, cols - 1, generator=g, dtype=F64)
    z_y = 9 * torch.randn(1, cols, rows - 1, generator=g, dtype=F64)
    nodes = GridWarp.from_logits(z_x, z_y, ratio).nodes
    GridWarp(nodes)  # passes its own checks
    for steps in (nodes[..., 0].diff(dim=2) * (cols - 1), nodes[..., 1].diff(dim=1) * (rows - 1)):
        assert float(steps.min()) >= 1 / ratio - 1e-9
        assert float(steps.max()) <= ratio + 1e-9


def test_jacobian_is_autograds() -> None:
    w = draw(2)
    p = points(20)
    expected = torch.autograd.functional.jacobian(lambda q: w(q).sum((0, 1)), p.expand(2, -1, -1))
    expected = torch.stack([torch.stack([expected[i, b] for i in (0, 1)], -2) for b in (0, 1)])
    assert torch.allclose(w.jacobian(p), expected, atol=1e-10)


@EXAMPLES
@given(seed=st.integers(0, 2**31), spread=st.floats(0.0, 4.0))
def test_the_smallest_determinant_is_found(seed: int, spread: float) -> None:
    w = draw(seed, spread=spread)
    p = points(2000, seed)
    sampled = torch.linalg.det(w.jacobian(p)).amin(dim=1)
    assert bool((w.min_jacobian <= sampled + 1e-9).all())
    # linear on every cell, so it is taken on at a corner: close by, nearly
    eps = 1e-9
    xs, ys = np.linspace(0, 1, 5), np.linspace(0, 1, 4)
    near = [(x + a, y + b) for x in xs for y in ys for a in (-eps, eps) for b in (-eps, eps)]
    corners = torch.tensor([q for q in near if min(q) >= 0 and max(q) <= 1], dtype=F64)
    assert torch.allclose(torch.linalg.det(w.jacobian(corners)).amin(1), w.min_jacobian, atol=1e-6)


def test_a_fold_is_found_and_has_no_inverse() -> None:
    nodes = GridWarp.identity(2, 3, 3, dtype=F64).nodes.clone()
    assert GridWarp(nodes).min_jacobian.tolist() == pytest.approx([1.0, 1.0])
    # the middle row is pulled right, the middle column of the second warp down: each monotone alone
    nodes[1, 1, 1, 0], nodes[1, 0, 1, 0], nodes[1, 2, 1, 0] = 0.95, 0.05, 0.05
    nodes[1, 1, 1, 1], nodes[1, 1, 0, 1], nodes[1, 1, 2, 1] = 0.95, 0.05, 0.05
    w = GridWarp(nodes)
    assert w.folds.tolist() == [False, True]
    with pytest.raises(WarpError, match=r"warp 1 of 2 folds .* use ~warp for the paper's"):
        w.inverse()
    assert bool((~w)(points()).isfinite().all())  # the paper's is always there


# inverses ---------------------------------------------------------------------------------------


@EXAMPLES
@given(seed=st.integers(0, 2**31), spread=st.floats(0.0, 1.8), n=st.integers(2, 8))
def test_the_refined_inverse_undoes_to_a_hundredth_of_a_pixel(seed: int, spread: float, n: int) -> None:
    w = draw(seed, n, n, spread)
    if bool(w.folds.any()):
        return
    p = points(100, seed)
    inverse = w.inverse(tolerance=0.01, size=224)
    assert float((w(inverse(p)) - p).norm(dim=-1).max()) * 223 <= 0.01
    assert float(inverse(w(p)).sub(p).norm(dim=-1).max()) * 223 <= 0.2  # as far as slopes magnify that
    assert ~inverse is w


def test_the_papers_inverse_inverts_every_row_and_column() -> None:
    w = draw(3, batch=1)
    p = points(30)
    q = (~w)(p)[0].numpy()
    xs, ys = np.linspace(0, 1, 5), np.linspace(0, 1, 4)
    nodes = w.nodes[0].numpy()
    for (x, y), (u, v) in zip(p.numpy(), q, strict=True):
        row = [np.interp(y, ys, nodes[:, j, 0]) for j in range(5)]
        column = [np.interp(x, xs, nodes[i, :, 1]) for i in range(4)]
        assert u == pytest.approx(np.interp(x, row, xs), abs=1e-10)
        assert v == pytest.approx(np.interp(y, column, ys), abs=1e-10)


def test_the_papers_inverse_is_off_by_pixels_and_the_refined_one_is_not() -> None:
    w = GridWarp.random(50, 8, 0.25, generator=torch.Generator().manual_seed(0), dtype=F64)
    w = w[~w.folds]
    p = points(500)
    off = [float((w(i(p)) - p).norm(dim=-1).mean()) * 223 for i in (~w, w.inverse())]
    assert off[0] > 1.0
    assert off[1] < 0.01


def test_on_separable_grids_all_inverses_agree() -> None:
    z = torch.randn(2, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    w = GridWarp.from_logits(z[:1].expand(5, 4).unsqueeze(0), z[1:].expand(5, 4).unsqueeze(0), 4.0)
    s = w.separable()
    p = points()
    assert torch.allclose(w(p), s(p), atol=1e-12)
    for inverse in (~w, w.inverse()):
        assert torch.allclose(inverse(p), (~s)(p), atol=1e-9)


def test_gradients_pass_both_inverses() -> None:
    w_x = (0.2 * torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)).requires_grad_()
    p = points(5).requires_grad_()
    for refined in (False, True):

        def f(w_x: Tensor, p: Tensor, refined: bool = refined) -> Tensor:
            w = GridWarp.from_log_slopes(w_x, 0.5 * w_x)
            return (w.inverse(tolerance=1e-9) if refined else ~w)(p)

        assert torch.autograd.gradcheck(f, (w_x, p), atol=1e-5)


def test_an_inverse_out_of_reach_is_reported() -> None:
    w = draw(0).to(torch.float32)
    with pytest.raises(ConvergenceError, match=r"still .* of the side off"):
        w.inverse(tolerance=1e-12)(points().float())


# the nearest separable warp ---------------------------------------------------------------------


def test_the_projection_is_nearest() -> None:
    w = draw(4, spread=2.0)
    s = w.separable()
    u = torch.linspace(0, 1, 121, dtype=F64)
    p = torch.stack(torch.meshgrid(u, u, indexing="xy"), -1).view(-1, 2)

    def cost(v: SeparableWarp) -> Tensor:
        return (w(p) - v(p)).square().sum(-1).mean(1)

    best = cost(s)
    for seed in range(20):
        other = SeparableWarp.random(2, 6, 1.2, generator=torch.Generator().manual_seed(seed), dtype=F64) @ s
        assert bool((cost(other) > best).all())
    assert isinstance(s.x, MonotoneMap)


# composition and bookkeeping --------------------------------------------------------------------


def test_products_are_exact_with_either_kind() -> None:
    g, h = draw(5), draw(6)
    s = SeparableWarp.random(2, 3, dtype=F64)
    p = points()
    for w, want in (((g @ h), g(h(p))), ((g @ s), g(s(p))), ((s @ g), s(g(p))), ((s @ g @ h), s(g(h(p))))):
        assert torch.allclose(w(p), want, atol=1e-12)
        assert w.batch == 2
        assert w.lattice(3, 4).shape == (2, 3, 4, 2)
        assert w.to(torch.float32).dtype == torch.float32
        assert w[0].batch == 1
    e = GridWarp.identity(1, 3, 3, dtype=F64)
    assert torch.allclose((g @ e)(p), g(p), atol=1e-12)
    assert torch.allclose((~(s @ g))(p), (~g)((~s)(p)), atol=1e-12)


def test_copies_and_repr() -> None:
    w = draw(7)
    for other in (pickle.loads(pickle.dumps(w)), copy.deepcopy(w), copy.copy(w), w.detach()):
        assert isinstance(other, GridWarp)
        assert torch.equal(other.nodes, w.nodes)
    assert repr(w).startswith("GridWarp(batch=2, 4 x 5 nodes, folding: 0 of 2, torch.float64")
    assert "inverse axis by axis of GridWarp" in repr(~w)
    assert len(w) == 2


def test_random_grids_are_the_authors_distribution() -> None:
    """Log-slopes uniform over a range of 3 strength, every row on its own."""
    w = GridWarp.random(500, 5, 0.4, generator=torch.Generator().manual_seed(0), dtype=F64)
    logs = (w.nodes[..., 0].diff(dim=2)).log()
    spread = logs.amax(2) - logs.amin(2)
    assert float(spread.max()) <= 1.2
    assert float(spread.max()) > 1.1
    assert float((w.nodes[:, 0, :, 0] - w.nodes[:, 1, :, 0]).abs().max()) > 0.1
    again = GridWarp.random(500, 5, 0.4, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert torch.equal(again.nodes, w.nodes)


# resampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "tokens"])
def test_pictures_are_sampled_at_the_grid(layout: str) -> None:
    w = draw(8).to(torch.float32)
    x = torch.rand(2, 3, 13, 17)
    expected = F.grid_sample(x, 2 * w.lattice(13, 17) - 1, padding_mode="border", align_corners=True)
    lay = Tokens((13, 17), 0) if layout == "tokens" else layout

    def convert(t: Tensor) -> Tensor:
        last = t.permute(0, 2, 3, 1)
        return {"nchw": t, "nhwc": last, "tokens": last.flatten(1, 2)}[layout]

    assert torch.allclose(unscale(convert(x), w, lay), convert(expected), atol=1e-5)
    back = F.grid_sample(x, 2 * (~w).lattice(13, 17) - 1, padding_mode="border", align_corners=True)
    assert torch.allclose(scale(convert(x), w, lay), convert(back), atol=1e-5)


def test_a_separable_grid_warps_like_its_separable_warp() -> None:
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    grid = GridWarp.from_logits(z[:1].expand(5, 4).unsqueeze(0), z[1:].expand(5, 4).unsqueeze(0))
    warp = grid.separable()
    x = torch.rand(1, 2, 20, 30, dtype=F64)
    labels = torch.randint(0, 9, (1, 20, 30))
    for op in (scale, unscale):
        assert torch.allclose(op(x, grid), op(x, warp), atol=1e-9)
        assert torch.equal(op(labels, grid), op(labels, warp))


def test_labels_stay_under_the_identity_and_gradients_are_central() -> None:
    labels = torch.randint(0, 9, (1, 40, 56))
    e = GridWarp.identity(1, 5, 5)
    assert torch.equal(unscale(labels, e), labels)
    assert torch.equal(scale(labels, e), labels)
    z = torch.zeros(1, 4, 3, dtype=F64, requires_grad=True)
    x = torch.rand(1, 1, 7, 8, dtype=F64)

    def f(z: Tensor) -> Tensor:
        return unscale(x, GridWarp.from_logits(z, 0.3 * z)).square().sum()

    (got,) = torch.autograd.grad(f(z), z)
    h = 1e-5
    for i in range(12):
        step = torch.zeros(12, dtype=F64)
        step[i] = h
        step = step.view_as(z)
        assert float(got.view(-1)[i]) == pytest.approx(
            float((f(z + step) - f(z - step)).detach()) / (2 * h), abs=1e-4
        )


def test_twice_differentiable() -> None:
    z = (0.3 * torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(1), dtype=F64)).requires_grad_()
    x = torch.rand(1, 1, 4, 5, dtype=F64, requires_grad=True)

    def f(x: Tensor, z: Tensor) -> Tensor:
        return unscale(x, GridWarp.from_log_slopes(z, 0.5 * z))

    assert torch.autograd.gradcheck(f, (x, z))
    assert torch.autograd.gradgradcheck(f, (x, z))


NODES = GridWarp.identity(1, 3, 3).nodes
OUT_OF_ORDER = NODES.clone()
OUT_OF_ORDER[0, 1, 1, 0] = -0.1
BAD = {
    "rank": (lambda: GridWarp(NODES[0]), ShapeError, "rows >= 2, cols >= 2, 2"),
    "order": (lambda: GridWarp(OUT_OF_ORDER), WarpError, "grid row is not a monotone map: values of map 1"),
    "ends": (lambda: GridWarp(NODES * 0.9), WarpError, "must start at 0 and end at 1"),
    "log-slopes": (
        lambda: GridWarp.from_log_slopes(torch.zeros(1, 3, 2), torch.zeros(1, 4, 2)),
        ShapeError,
        "got",
    ),
    "ratio": (
        lambda: GridWarp.from_logits(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2), 1.0),
        WarpError,
        "must be above 1",
    ),
    "points": (lambda: GridWarp.identity()(torch.zeros(3)), ShapeError, "points must be"),
    "batch of points": (lambda: GridWarp.identity(2)(torch.zeros(3, 5, 2)), ShapeError, "do not fit 2 warps"),
    "batch": (lambda: scale(torch.zeros(2, 1, 4, 4), GridWarp.identity(3)), ShapeError, "3 warps do not fit"),
    "antialias": (
        lambda: scale(torch.zeros(1, 1, 4, 4), GridWarp.identity(), antialias=True),
        DTypeError,
        "needs a SeparableWarp",
    ),
    "device": (
        lambda: scale(torch.zeros(1, 1, 4, 4), GridWarp.identity().to("meta")),
        DTypeError,
        "is on meta",
    ),
    "strength": (lambda: GridWarp.random(strength=-1.0), WarpError, "strength must be at least 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_error(case: str) -> None:
    call, error, text = BAD[case]
    with pytest.raises(error, match=text) as caught:
        call()
    assert isinstance(caught.value, LSEError)
    assert "\n" not in str(caught.value)
