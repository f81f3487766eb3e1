"""Bilinear sampling: four ways to one result, first and second derivatives, at pixels and between."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lse_core import SeparableWarp, scale, unscale
from lse_core.log_slopes import ramp
from lse_core.sampling import hat, on_pixels, pixel_numbers, sample_grid, sample_separable

F64 = torch.float64


def outer(s_x: Tensor, s_y: Tensor) -> Tensor:
    shape = (s_x.shape[0], s_y.shape[1], s_x.shape[1])
    return torch.stack([s_x.unsqueeze(1).expand(shape), s_y.unsqueeze(2).expand(shape)], dim=-1)


def by_grid(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    return sample_grid(x.permute(0, 3, 1, 2), outer(s_x, s_y)).permute(0, 2, 3, 1)


def by_grid_sample(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    return sample_separable(x.permute(0, 3, 1, 2), s_x, s_y, "grid_sample").permute(0, 2, 3, 1)


def by_products(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    return sample_separable(x, s_x, s_y, "products")


def by_taps(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    return sample_separable(x, s_x, s_y, "taps")


def by_definition(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    """Weights written out, differentiated by autograd alone."""
    w_x, w_y = (hat(s.unsqueeze(-1) - torch.arange(n)) for s, n in ((s_x, x.shape[2]), (s_y, x.shape[1])))
    return torch.einsum("bih,bhwc,bjw->bijc", w_y, x, w_x)


WAYS = pytest.mark.parametrize(
    "way", [by_grid, by_grid_sample, by_products, by_taps], ids=lambda f: f.__name__[3:]
)


def case(on: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A map, positions inside it (on pixels if `on`), and a gradient to send back."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 4, 5, 3, generator=g, dtype=F64)
    s_x = 0.2 + 3.6 * torch.rand(2, 6, generator=g, dtype=F64)
    s_y = 0.2 + 2.6 * torch.rand(2, 3, generator=g, dtype=F64)
    if on:
        s_x, s_y = s_x.round().clamp(1, 3), s_y.round().clamp(1, 2)
    return x, s_x, s_y, torch.rand(2, 3, 6, 3, generator=g, dtype=F64)


@WAYS
@pytest.mark.parametrize("on", [False, True], ids=["between", "on pixels"])
def test_values_and_gradients_are_the_definitions(way: object, on: bool) -> None:
    *inputs, g = case(on)
    results = []
    for f in (way, by_definition):
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = f(*leaves)  # type: ignore[operator]
        results.append([out, *torch.autograd.grad(out, leaves, g)])
    for got, want in zip(*results, strict=True):
        assert torch.allclose(got, want, atol=1e-10)


@WAYS
def test_gradients_have_gradients(way: object) -> None:
    *inputs, _ = case()
    leaves = [t[:1].clone().requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(way, leaves)
    assert torch.autograd.gradgradcheck(way, leaves)


@WAYS
@pytest.mark.parametrize("alone", [0, 1, 2])
def test_each_input_may_need_a_gradient_alone(way: object, alone: int) -> None:
    *inputs, g = case()
    leaves = [t.clone().requires_grad_() for t in inputs]
    together = torch.autograd.grad(way(*leaves), leaves, g)[alone]  # type: ignore[operator]
    mixed = [t.detach() if i != alone else t for i, t in enumerate(leaves)]
    (got,) = torch.autograd.grad(way(*mixed), [leaves[alone]], g)  # type: ignore[operator]
    assert torch.allclose(got, together)


def test_coupled_positions_are_grid_sample_inside_and_out() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 6, 7, generator=g, dtype=F64, requires_grad=True)
    s = (torch.rand(2, 5, 4, 2, generator=g, dtype=F64) * 9 - 1.5).requires_grad_()
    grid = s * (2 / torch.tensor([6.0, 5.0], dtype=F64)) - 1
    want = F.grid_sample(x, grid, padding_mode="border", align_corners=True)
    got = sample_grid(x, s)
    assert torch.allclose(got, want)
    cotangent = torch.rand(want.shape, generator=g, dtype=F64)
    expected = torch.autograd.grad(want, (x, s), cotangent)
    for create_graph in (False, True):
        for a, b in zip(
            torch.autograd.grad(got, (x, s), cotangent, create_graph=create_graph, retain_graph=True),
            expected,
            strict=True,
        ):
            assert torch.allclose(a, b, atol=1e-12)


def test_positions_a_rounding_off_are_put_on_pixels() -> None:
    s = torch.tensor([2.9999998, 3.0000002, 3.01], requires_grad=True)
    out = on_pixels(s, 8)
    assert out.tolist() == [3.0, 3.0, pytest.approx(3.01)]
    out.sum().backward()
    assert s.grad is not None
    assert s.grad.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", [(2, 3, 40, 41), (2, 9, 10, 20), (2, 40, 41, 20), (2, 40, 41, 3)], ids=str)
def test_float32_gradient_at_the_identity_is_central(shape: tuple[int, ...]) -> None:
    """Rounding puts identity coordinates left or right of pixels; the gradient must not depend on it."""
    layout = "nchw" if shape[1] == 3 else "nhwc"
    torch.manual_seed(0)
    x, target = torch.rand(shape), torch.rand(shape)

    def gradient(dtype: torch.dtype) -> Tensor:
        z = torch.zeros(2, 2, 5, dtype=dtype, requires_grad=True)
        out = unscale(x.to(dtype), SeparableWarp.from_logits(z), layout)
        return torch.autograd.grad((out * target.to(dtype)).sum(), z)[0]

    exact = gradient(F64)
    assert torch.allclose(gradient(torch.float32).double(), exact, atol=5e-4 * float(exact.abs().max()))


# anti-aliasing ----------------------------------------------------------------------------------


def squeeze(strength: float) -> SeparableWarp:
    """Shrinks the left half and stretches the right one when used with `scale`."""
    return SeparableWarp.from_log_slopes(torch.tensor([[[-strength, strength], [0.0, 0.0]]]))


def naive_antialias(x: Tensor, warp: SeparableWarp) -> Tensor:
    """Each output column is the mean of input columns under a tent as wide as one output pixel."""
    n = x.shape[-1]
    inverse = ~warp.x
    out = torch.zeros_like(x)
    for i in range(n):
        u = torch.tensor([i / (n - 1)])
        centre, step = float(inverse(u)) * (n - 1), max(1.0, float(inverse.slope(u)))
        weights = [max(0.0, 1 - abs(centre - j) / step) for j in range(n)]
        out[..., i] = sum(w * x[..., j] for j, w in enumerate(weights)) / sum(weights)
    return out


def test_antialias_averages_where_the_warp_shrinks() -> None:
    x = torch.rand(1, 2, 5, 41)
    warp = squeeze(0.8)
    assert torch.allclose(scale(x, warp, antialias=True), naive_antialias(x, warp), atol=1e-4)
    # with no shrinking there is nothing to average
    identity = SeparableWarp.identity(1, 3)
    assert torch.allclose(scale(x, identity, antialias=True), x, atol=1e-5)


def test_antialias_keeps_stripes_from_aliasing() -> None:
    stripes = ((-1.0) ** torch.arange(101)).expand(1, 1, 5, 101)
    warp = squeeze(1.0)  # the left half is shrunk four times
    left = slice(2, 10)
    plain, smooth = (scale(stripes, warp, antialias=a)[0, 0, 2, left].abs().max() for a in (False, True))
    assert float(plain) > 0.4
    assert float(smooth) < 0.1


def test_antialias_works_in_every_layout_with_gradients_and_sizes() -> None:
    z = torch.randn(2, 2, 4, dtype=F64, requires_grad=True)
    x = torch.rand(2, 3, 6, 7, dtype=F64)
    first = unscale(x, SeparableWarp.from_logits(z, 4.0), size=(3, 4), antialias=True)
    last = unscale(
        x.permute(0, 2, 3, 1), SeparableWarp.from_logits(z, 4.0), "nhwc", size=(3, 4), antialias=True
    )
    assert torch.allclose(first, last.permute(0, 3, 1, 2))

    def loss(z: Tensor) -> Tensor:
        return unscale(x, SeparableWarp.from_logits(z, 4.0), size=(3, 4), antialias=True)

    assert torch.autograd.gradcheck(loss, (z,))


@pytest.mark.parametrize("f", [hat, ramp])
def test_values_are_the_same_with_and_without_gradients(f) -> None:
    t = 6.0 * torch.rand(10_000, generator=torch.Generator().manual_seed(0)) - 3.0
    with torch.no_grad():
        expected = f(t)
    assert torch.equal(f(t.requires_grad_()), expected)
    assert expected.min() == 0


def test_remembered_constants_are_no_fakes() -> None:
    from torch._subclasses import FakeTensorMode

    where = {"device": torch.device("cpu"), "dtype": F64}
    real = pixel_numbers(5, **where)
    with FakeTensorMode():
        assert type(pixel_numbers(5, **where)) is not Tensor
        assert type(pixel_numbers(6, **where)) is not Tensor
    assert pixel_numbers(5, **where) is real
    assert torch.equal(pixel_numbers(6, **where), torch.arange(6, dtype=F64))
