"""Triangular warps: the group laws, an independent reference, and resampling against `F.grid_sample`."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from lse_core import GridWarp, MonotoneMap, SeparableWarp, Tokens, TriangularWarp, scale, unscale
from lse_core.columns import sample_columns
from lse_core.errors import DTypeError, ShapeError, UnknownNameError, WarpError
from lse_core.pointwise import ComposedWarp
from lse_core.resample import _columns
from lse_core.triangular import ORDERS, Triangular

LAWS = settings(max_examples=40, derandomize=True, deadline=None)
F64 = torch.float64
seeds, counts, orders = st.integers(0, 2**31), st.integers(1, 7), st.sampled_from(ORDERS)


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(
    seed: int, segments: int, order: str, ratio: float = 3.0, dtype: torch.dtype = F64
) -> TriangularWarp:
    """Two warps whose nodes and knots are not equally spaced, so that no spacing is taken for granted."""
    generator = source(seed)
    columns = 2 + seed % 4
    w = TriangularWarp.random(
        2, segments, ratio, columns=columns, order=order, generator=generator, dtype=dtype
    )
    nodes, knots = (
        SeparableWarp.random(2, n, 2.0, generator=generator, dtype=dtype).x.values
        for n in (columns - 1, segments)
    )
    return TriangularWarp(w.first, nodes, knots, w.values, order)


def points(n: int = 60) -> Tensor:
    inner = torch.rand(2, n, 2, generator=source(5), dtype=F64)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=F64)
    return torch.cat([inner, corners.expand(2, 4, 2)], dim=1)


def lattice(h: int, w: int) -> Tensor:
    x, y = torch.linspace(0, 1, w, dtype=F64), torch.linspace(0, 1, h, dtype=F64)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


# the group --------------------------------------------------------------------------------------


@LAWS
@given(seed=seeds, a=counts, b=counts, c=counts, order=orders)
def test_the_laws_hold(seed: int, a: int, b: int, c: int, order: str) -> None:
    u, v, w = (draw(seed + i, n, order) for i, n in enumerate((a, b, c)))
    p, e = points(), TriangularWarp.identity(1, order=order, dtype=F64)
    for got, want in (
        ((u @ v) @ w, u @ (v @ w)),
        (u @ ~u, e),
        (~u @ u, e),
        (u @ e, u),
        (e @ u, u),
        (~(u @ v), ~v @ ~u),
        (~~u, u),
    ):
        assert isinstance(got, Triangular)
        assert got.order == order
        assert float((got(p) - want(p)).abs().max()) <= 1e-12
    assert float(((u @ v)(p) - u(v(p))).abs().max()) <= 1e-12
    for product in (u, ~u, u @ v, ~(u @ ~v)):  # positions of a picture's pixels are those of points
        at = product.lattice(4, 6)
        assert float((at.flatten(1, 2) - product(lattice(4, 6).view(-1, 2))).abs().max()) <= 1e-12


@LAWS
@given(seed=seeds, n=counts, order=orders)
def test_it_is_what_its_definition_says(seed: int, n: int, order: str) -> None:
    w, p = draw(seed, n, order), points()
    got, first = w(p), ORDERS.index(order)
    for i in range(2):
        for place, image in zip(p[i].tolist(), got[i].tolist(), strict=True):
            u, v = place[first], place[1 - first]
            column = [np.interp(u, w.nodes[i].numpy(), row) for row in w.values[i].numpy().T]
            want = (
                np.interp(u, w.first.knots[i].numpy(), w.first.values[i].numpy()),
                np.interp(v, w.knots[i].numpy(), column),
            )
            assert (image[first], image[1 - first]) == pytest.approx(want, abs=1e-12)


@LAWS
@given(seed=seeds, n=counts, order=orders)
def test_float32_keeps_six_digits(seed: int, n: int, order: str) -> None:
    u, v = (draw(seed + i, n, order, dtype=torch.float32) for i in (0, 1))
    exact_u, exact_v, p = u.to(F64), v.to(F64), points()
    for got, want in ((u @ v, exact_u @ exact_v), (~u, ~exact_u), (u @ ~u, exact_u @ ~exact_u)):
        # rounded points are moved on by the slopes of both warps
        assert float((got(p.float()) - want(p.float().double())).abs().max()) <= 4e-6


@pytest.mark.parametrize("order", ORDERS)
def test_separable_warps_are_triangular_in_both_orders(order: str) -> None:
    s, w, p = SeparableWarp.random(2, 5, 3.0, generator=source(1), dtype=F64), draw(2, 4, order), points()
    as_triangular = TriangularWarp.from_separable(s, order)
    assert float((as_triangular(p) - s(p)).abs().max()) <= 1e-12
    assert float((as_triangular.separable()(p) - s(p)).abs().max()) <= 1e-12
    for product, want in ((s @ w, s(w(p))), (w @ s, w(s(p)))):
        assert isinstance(product, Triangular)
        assert float((product(p) - want).abs().max()) <= 1e-12


def test_the_nearest_separable_warp_is_the_mean_of_the_columns() -> None:
    w = draw(3, 4, "xy")
    near, p = w.separable(), lattice(101, 2001).view(-1, 2)
    assert torch.equal(near.x.values, w.first.values)
    mean = w(p)[..., 1].view(2, 101, 2001).mean(-1)  # by 2001 places, where the method is exact
    assert float((near.y(torch.linspace(0, 1, 101, dtype=F64)) - mean).abs().max()) <= 2e-4


def test_products_of_both_orders_are_exact_but_not_triangular() -> None:
    u, v, p = draw(0, 4, "xy"), draw(1, 3, "yx"), points()
    product = u @ v
    assert type(product) is ComposedWarp
    assert float(((~product)(product(p)) - p).abs().max()) <= 1e-12
    assert type(u @ GridWarp.identity(1, dtype=F64)) is ComposedWarp


@LAWS
@given(seed=seeds, n=counts, order=orders)
def test_slopes_are_bounded_and_positive(seed: int, n: int, order: str) -> None:
    u, v = draw(seed, n, order), draw(seed + 1, n, order)
    for w in (u, ~u, u @ v):
        at = w.lattice(41, 41)
        slopes = (
            torch.stack([at[..., 0].diff(dim=2).flatten(1), at[..., 1].diff(dim=1).flatten(1)], dim=1) * 40
        )
        least, greatest = w.slope_bounds.unbind(-1)
        assert bool((slopes.amin(-1) >= least - 1e-9).all() and (slopes.amax(-1) <= greatest + 1e-9).all())
        assert bool((least > 0).all())
    random = TriangularWarp.random(9, 4, 2.5, generator=source(seed), dtype=F64)
    assert bool((random.slope_bounds >= 1 / 2.5 - 1e-12).all() and (random.slope_bounds <= 2.5 + 1e-12).all())


@settings(LAWS, max_examples=15)
@given(seed=seeds, order=orders, columns=st.integers(2, 12), segments=st.integers(1, 12))
def test_resampling_is_off_by_no_more_than_it_says(
    seed: int, order: str, columns: int, segments: int
) -> None:
    product = draw(seed, 4, order) @ draw(seed + 1, 3, order)
    read = product.resample(columns, segments)
    first, fine = ORDERS.index(order), lattice(121, 121)
    u, v = fine[..., first], fine[..., 1 - first]
    want, got = (w(fine.view(-1, 2)).view(2, 121, 121, 2) for w in (product, read))
    off = (got - want).abs().amax((1, 2))
    own = product.slope_bounds[..., 1] - product.slope_bounds[..., 0]
    assert bool((off[:, first] <= own[:, first] / (4 * segments) + 1e-9).all())
    # the derivative across the columns, from differences on the lattice
    across = want[..., 1 - first].diff(dim=2 - first) * 120
    shear = across.flatten(1).amax(1) - across.flatten(1).amin(1)
    bound = own[:, 1 - first] / (4 * segments) + shear / (4 * (columns - 1))
    assert bool((off[:, 1 - first] <= 1.02 * bound + 1e-9).all())
    on = torch.isclose(u * (columns - 1), (u * (columns - 1)).round(), atol=1e-9) & torch.isclose(
        v * segments, (v * segments).round(), atol=1e-9
    )
    assert float((got - want)[:, on][..., 1 - first].abs().max()) <= 1e-12


def test_finer_nodes_bring_a_product_nearer() -> None:
    product = draw(0, 4, "xy") @ draw(1, 3, "xy")
    p = lattice(101, 101).view(-1, 2)
    off = [float((product.resample(n + 1, n)(p) - product(p)).abs().max()) for n in (4, 16, 64)]
    assert off[0] > 2 * off[1] > 4 * off[2] > 0


# resampling -------------------------------------------------------------------------------------


def by_grid_sample(x: Tensor, warp: Triangular, size: tuple[int, int]) -> Tensor:
    grid = 2.0 * warp.to(F64).lattice(*size) - 1.0
    return F.grid_sample(x.double(), grid, mode="bilinear", padding_mode="border", align_corners=True)


WARPS: list[Callable[[TriangularWarp], Triangular]] = [lambda w: w, lambda w: ~w, lambda w: w @ ~w[[1, 0]]]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    seed=seeds,
    order=orders,
    kind=st.sampled_from(WARPS),
    channels=st.sampled_from([1, 3, 17]),
    sizes=st.tuples(*[st.integers(1, 14)] * 4),
)
def test_every_way_equals_grid_sample(
    seed: int,
    order: str,
    kind: Callable[[TriangularWarp], Triangular],
    channels: int,
    sizes: tuple[int, int, int, int],
) -> None:
    h, w, *size = sizes
    out = (size[0], size[1])
    x = torch.rand(2, channels, h, w, generator=source(seed))
    warp = kind(draw(seed, 5, order, dtype=torch.float32))
    want = by_grid_sample(x, warp, out)
    last = x.permute(0, 2, 3, 1)
    s, t = warp.positions(*out)
    first, second = (w, h) if order == "xy" else (h, w)
    turned = last.transpose(1, 2) if order == "xy" else last
    by_taps = sample_columns(turned, s * (first - 1), t * (second - 1), taps=True)
    for got in (
        unscale(x, warp, size=out),
        unscale(last, warp, "nhwc", size=out).permute(0, 3, 1, 2),
        _columns(x, warp, out, False),
        _columns(last, warp, out, True).permute(0, 3, 1, 2),
        by_taps.permute(0, 3, 2, 1) if order == "xy" else by_taps.permute(0, 3, 1, 2),
    ):
        assert got.shape == want.shape
        assert float((got - want).abs().max()) <= 1e-5


@pytest.mark.parametrize("order", ORDERS)
def test_tokens_and_half_precision_follow_the_picture(order: str) -> None:
    warp = draw(4, 4, order, dtype=torch.float32)
    x = torch.rand(2, 20, 6, 9, generator=source(0))
    tokens = torch.cat([torch.rand(2, 3, 20, generator=source(1)), x.flatten(2).transpose(1, 2)], dim=1)
    got = unscale(tokens, warp, Tokens((6, 9), 3))
    want = by_grid_sample(x, warp, (6, 9)).float()
    assert torch.equal(got[:, :3], tokens[:, :3])
    torch.testing.assert_close(got[:, 3:].transpose(1, 2).unflatten(2, (6, 9)), want, rtol=0, atol=1e-5)
    half = unscale(x.permute(0, 2, 3, 1).half(), warp, "nhwc")
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float().permute(0, 3, 1, 2), want, rtol=0, atol=2e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_labels_are_the_nearest_pixels_at_the_same_places(order: str) -> None:
    warp = draw(6, 5, order, dtype=torch.float32)
    labels = torch.arange(2 * 11 * 13).view(2, 11, 13)
    for w in (warp, ~warp):
        at = w.to(F64).lattice(8, 9)
        row, column = (at[..., 1] * 10).round().long(), (at[..., 0] * 12).round().long()
        want = torch.stack([labels[i, row[i], column[i]] for i in range(2)])
        assert torch.equal(unscale(labels, w, size=(8, 9)), want)


def test_scale_undoes_unscale() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 6, 80), torch.linspace(0, 6, 90), indexing="ij")
    picture = torch.stack([(x + y).sin(), (x * y / 3).cos()])[None]
    warp = TriangularWarp.random(1, 4, 2.0, generator=source(2))
    away = (unscale(picture, warp) - picture).abs().max()
    for inside in (scale(unscale(picture, warp), warp), unscale(scale(picture, warp), warp)):
        assert float((inside - picture).abs().max()) < 0.03 < 0.3 < float(away)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_gradients_are_those_of_finite_differences(order: str, layout: str, strength: float) -> None:
    # at strength 0 it is the identity, and every position is exactly a pixel
    x = torch.rand(1, 17, 7, 9, generator=source(3), dtype=F64)
    x = x if layout == "nchw" else x.permute(0, 2, 3, 1)
    back = torch.rand(x.shape, generator=source(4), dtype=F64)
    w = strength * torch.randn(1, 5, 4, generator=source(5), dtype=F64)

    def f(w: Tensor) -> Tensor:
        return (unscale(x, TriangularWarp.from_log_slopes(w, order), layout) * back).sum()

    leaf = w.clone().requires_grad_()
    f(leaf).backward()
    assert leaf.grad is not None
    step = 1e-6
    for i in range(w.numel()):
        d = torch.zeros_like(w)
        d.view(-1)[i] = step
        wanted = (f(w + d) - f(w - d)) / (2 * step)
        assert float(leaf.grad.view(-1)[i]) == pytest.approx(float(wanted), rel=1e-5, abs=1e-6)


def test_columns_are_differentiable_twice() -> None:
    x = torch.rand(2, 4, 3, 2, generator=source(0), dtype=F64, requires_grad=True)
    s = (0.2 + 2.6 * torch.rand(2, 3, generator=source(1), dtype=F64)).requires_grad_()
    t = (0.2 + 1.6 * torch.rand(2, 3, 5, generator=source(2), dtype=F64)).requires_grad_()
    assert torch.autograd.gradcheck(sample_columns, (x, s, t))
    assert torch.autograd.gradgradcheck(sample_columns, (x, s, t))


@pytest.mark.parametrize("channels", [2, 20])
def test_an_exported_graph_holds_no_grid_sample(channels: int) -> None:
    class Warped(torch.nn.Module):
        def forward(self, x: Tensor, w: Tensor) -> Tensor:
            warp = TriangularWarp.from_log_slopes(w)
            return unscale(scale(x, warp), warp @ warp)

    x, w = torch.rand(2, channels, 10, 12), torch.randn(2, 5, 4)
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        program = torch.export.export(Warped(), (x, w), dynamic_shapes=({0: batch}, {0: batch}))
        called = {str(node.target) for node in program.graph.nodes}
        assert not [name for name in called if "grid_sampl" in name or "searchsorted" in name]
        assert any("gather" in name for name in called) is (channels == 2)
        x, w = torch.rand(5, channels, 10, 12), torch.randn(5, 5, 4)
        torch.testing.assert_close(program.module()(x, w), Warped()(x, w), rtol=0, atol=2e-5)


# the object -------------------------------------------------------------------------------------


def test_random_warps_are_drawn_from_their_seed() -> None:
    a, b, c = (TriangularWarp.random(3, 4, columns=5, generator=source(n)) for n in (0, 0, 1))
    assert torch.equal(a.values, b.values)
    assert not torch.equal(a.values, c.values)
    assert a.values.shape == (3, 5, 5)
    assert len({tuple(row) for row in a.values[0].tolist()}) == 5  # every column is its own
    assert torch.equal(TriangularWarp.random(strength=0.0).values, TriangularWarp.identity(1, 4, 4).values)


def test_the_path_from_the_identity_ends_at_the_warp() -> None:
    w, p = draw(7, 4, "yx"), points()
    for t, want in ((0.0, p), (1.0, w(p))):
        assert float((w.geodesic(t)(p) - want).abs().max()) <= 1e-12
    moved = [float((w.geodesic(t)(p) - p).abs().max()) for t in (0.25, 0.5, 0.75, 1.0)]
    assert moved == sorted(moved)


def test_it_travels_through_files_trees_and_batches() -> None:
    w, p = draw(8, 4, "yx"), points()
    file = io.BytesIO()
    torch.save(w, file)
    file.seek(0)
    with torch.serialization.safe_globals([TriangularWarp, MonotoneMap]):
        again = torch.load(file, weights_only=True)
    leaves, spec = pytree.tree_flatten(w)
    assert all(isinstance(leaf, Tensor) for leaf in leaves)
    for other in (again, pytree.tree_unflatten(leaves, spec), w[:], w.detach(), w.to(F64)):
        assert torch.equal(other(p), w(p))
        assert other.order == "yx"
    one = w[0].broadcast(3)
    assert torch.equal(one(p[:1])[2], w(p)[0])
    assert torch.equal((~w)[1](p[1:]), (~w)(p)[1:])
    assert repr(w).startswith("TriangularWarp(yx, batch=2")
    assert repr(~w).startswith("inverse of TriangularWarp")
    assert repr(w @ w).startswith("TriangularProduct(")


def parts() -> tuple[MonotoneMap, Tensor, Tensor, Tensor]:
    w = TriangularWarp.random(2, 3, columns=4)
    return w.first, w.nodes.clone(), w.knots.clone(), w.values.clone()


def test_what_is_no_triangular_warp_is_refused() -> None:
    first, nodes, knots, values = parts()
    bent = values.clone()
    bent[1, 2, 1] = 2.0
    for arguments, kind, text in (
        ((first, nodes, knots, bent), WarpError, "columns of a triangular warp.*of map 6 do not increase"),
        ((first, nodes.flip(1), knots, values), WarpError, "nodes of a triangular warp"),
        ((first, nodes, knots + 0.1, values), WarpError, "must start at 0 and end at 1"),
        ((first, nodes[:, :3], knots, values), ShapeError, "nodes \\(batch, M\\)"),
        ((first[0], nodes, knots, values), ShapeError, "batch of 1"),
        ((first.to(F64), nodes, knots, values), DTypeError, "one floating dtype"),
        ((first, nodes, knots, values, "zy"), UnknownNameError, "unknown order 'zy'"),
    ):
        with pytest.raises(kind, match=text):
            TriangularWarp(*arguments)
    w = TriangularWarp(*parts())
    for call, kind, text in (
        (lambda: TriangularWarp.random(columns=1), ShapeError, "at least 2 columns; got 1"),
        (lambda: TriangularWarp.from_log_slopes(torch.zeros(1, 2, 4)), ShapeError, "1 \\+ columns"),
        (lambda: w.resample(1, 4), ShapeError, "at least 2 columns and 1 segment; got 1 and 4"),
        (lambda: w(torch.zeros(3, 5, 2)), ShapeError, "do not fit 2 warps"),
        (lambda: unscale(torch.zeros(3, 1, 4, 4), w), ShapeError, "2 warps do not fit a batch of 3"),
        (lambda: unscale(torch.zeros(2, 1, 4, 4), w, antialias=True), DTypeError, "warp.separable()"),
    ):
        with pytest.raises(kind, match=text):
            call()
