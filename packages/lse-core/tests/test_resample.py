"""S and S^-1: against grid_sample on every path, gradients, labels, half precision, errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lse_core import NCHW, NHWC, Layout, LSEError, SeparableWarp, Tokens, scale, unscale
from lse_core.errors import DTypeError, ShapeError, UnknownNameError
from lse_core.resample import averaging_weights, axis_weights, pixel_centres, warp_by_weights

EPS = torch.finfo(torch.float32).eps


def interpolate(u: np.ndarray, xs: Tensor, ys: Tensor) -> np.ndarray:
    return np.stack([np.interp(u, x, y) for x, y in zip(xs.numpy(), ys.numpy(), strict=True)])


def reference_grid(warp: SeparableWarp, h: int, w: int, *, inverse: bool) -> Tensor:
    """The sampling grid (B, h, w, 2) in [-1, 1], by numpy's interpolation and nothing of ours."""
    u_x, u_y = (
        interpolate(np.linspace(0, 1, n), *((m.values, m.knots) if inverse else (m.knots, m.values)))
        for m, n in ((warp.x, w), (warp.y, h))
    )
    grid = np.stack(np.broadcast_arrays(u_x[:, None, :], u_y[:, :, None]), axis=-1)
    return torch.from_numpy(2 * grid - 1)


def reference(x: Tensor, warp: SeparableWarp, *, inverse: bool, mode: str = "bilinear") -> Tensor:
    """Warp NCHW by `F.grid_sample` in float64."""
    grid = reference_grid(warp, *x.shape[2:], inverse=inverse)
    return F.grid_sample(x.double(), grid, mode=mode, padding_mode="border", align_corners=True)


def random_warp(batch: int = 3, ratio: float = 4.0, dtype: torch.dtype = torch.float32) -> SeparableWarp:
    return SeparableWarp.random(batch, 5, ratio, generator=torch.Generator().manual_seed(7), dtype=dtype)


# (height, width): small ones take the matrix path, large ones the grid path; none of them square
SIZES = [(9, 14), (14, 9), (70, 96), (1, 8), (6, 1)]
LAYOUTS: dict[str, tuple] = {
    "nchw": (lambda h, w: NCHW(), lambda x: x),
    "nhwc": (lambda h, w: NHWC(), lambda x: x.permute(0, 2, 3, 1)),
    **{
        f"tokens+{p}": (
            lambda h, w, p=p: Tokens((h, w), p),
            lambda x, p=p: torch.cat(
                [torch.full((x.shape[0], p, x.shape[1]), 9.0), x.flatten(2).transpose(1, 2)], dim=1
            ),
        )
        for p in (0, 1, 5)
    },
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_path_and_layout_is_bilinear_grid_sampling(size: tuple[int, int], name: str) -> None:
    make, convert = LAYOUTS[name]
    layout: Layout = make(*size)
    x = torch.rand(3, 4, *size, generator=torch.Generator().manual_seed(0))
    warp = random_warp()
    for op, inverse in ((scale, True), (unscale, False)):
        got = op(convert(x), warp, layout)
        expected = convert(reference(x, warp, inverse=inverse).float())
        # a coordinate is one float32, known to half a float of [0, 1]; that is 3e-6 px of 96
        assert float((got - expected).abs().max()) <= max(1e-5, 2 * EPS * max(size))
        assert got.dtype == x.dtype


@pytest.mark.parametrize("size", [(9, 14), (70, 96), (224, 224)], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_in_float64_nothing_but_rounding_is_left(size: tuple[int, int], name: str) -> None:
    make, convert = LAYOUTS[name]
    x = torch.rand(1, 2, *size, dtype=torch.float64)
    warp = random_warp(1, dtype=torch.float64)
    for op, inverse in ((scale, True), (unscale, False)):
        expected = convert(reference(x, warp, inverse=inverse))
        assert float((op(convert(x), warp, make(*size)) - expected).abs().max()) <= 1e-11


@pytest.mark.parametrize("size", [(9, 14), (70, 96)], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_round_trip_is_the_reference_round_trip(size: tuple[int, int], name: str) -> None:
    make, convert = LAYOUTS[name]
    layout: Layout = make(*size)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    warp = random_warp(2)
    got = unscale(scale(convert(x), warp, layout), warp, layout)
    expected = reference(reference(x, warp, inverse=True), warp, inverse=False).float()
    assert float((got - convert(expected)).abs().max()) <= max(1e-5, 4 * EPS * max(size))


def test_round_trip_loses_nothing_of_a_smooth_picture() -> None:
    """Interpolation aside, S^-1 S is the identity: on a smooth picture only O(1/n^2) is left."""
    t = torch.linspace(0, 3, 129)
    smooth = (torch.sin(t).unsqueeze(0) * torch.cos(t).unsqueeze(1)).expand(1, 1, -1, -1)
    warp = random_warp(1, 2.0)
    back = unscale(scale(smooth, warp), warp)
    assert float((back - smooth).abs().max()) < 1e-3
    assert float((scale(smooth, warp) - smooth).abs().max()) > 0.1  # while the warp does something


def test_scale_magnifies_where_the_slope_exceeds_one() -> None:
    """The local scaling factor is dl/dt (section 4.1): a bar in a stretched segment gets wider."""
    warp = SeparableWarp.from_log_slopes(torch.tensor([[[0.7, -0.7], [0.0, 0.0]]]))
    bar = torch.zeros(1, 1, 5, 101)
    bar[..., 20:31] = 1.0
    factor = float(warp.x.slope(torch.tensor([0.25])))
    assert float(scale(bar, warp)[0, 0, 2].sum()) == pytest.approx(11 * factor, rel=0.02)


def test_one_warp_serves_a_batch_and_size_is_free() -> None:
    x = torch.rand(3, 2, 8, 8)
    warp = random_warp(1)
    assert torch.equal(unscale(x, warp), unscale(x, warp.broadcast(3)))
    small = unscale(x, SeparableWarp.identity(), size=(4, 15))
    expected = F.interpolate(x, size=(4, 15), mode="bilinear", align_corners=True)
    assert torch.allclose(small, expected, atol=1e-5)


def test_non_contiguous_input() -> None:
    x = torch.rand(2, 9, 14, 4).permute(0, 3, 1, 2)
    warp = random_warp(2)
    assert torch.allclose(unscale(x, warp), unscale(x.contiguous(), warp), atol=1e-6)


def test_matrix_products_take_either_layout() -> None:
    x = torch.rand(2, 3, 6, 7)
    w_x, w_y = axis_weights(torch.rand(2, 5), 7), axis_weights(torch.rand(2, 4), 6)
    expected = torch.einsum("bih,bchw,bjw->bcij", w_y, x, w_x)
    assert torch.allclose(warp_by_weights(x, w_x, w_y, channels_last=False), expected, atol=1e-6)
    last = warp_by_weights(x.permute(0, 2, 3, 1), w_x, w_y, channels_last=True)
    assert torch.allclose(last.permute(0, 3, 1, 2), expected, atol=1e-6)


# gradients --------------------------------------------------------------------------------------


def numeric_gradient(f: object, z: Tensor, h: float = 1e-6) -> Tensor:
    """Central differences: at a kink they are the mean of both sides."""
    gradient = torch.zeros_like(z)
    for i in range(z.numel()):
        step = torch.zeros_like(z).view(-1)
        step[i] = h
        step = step.view_as(z)
        gradient.view(-1)[i] = (f(z + step) - f(z - step)) / (2 * h)  # type: ignore[operator]
    return gradient


@pytest.mark.parametrize("size", [(6, 7), (34, 35)], ids=["few", "many"])
@pytest.mark.parametrize("op", [scale, unscale])
def test_gradient_at_the_identity_is_the_central_difference(op: object, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 2, *size, dtype=torch.float64)
    target = torch.rand_like(x)

    def loss(z: Tensor) -> Tensor:
        return (op(x, SeparableWarp.from_logits(z)) * target).sum()  # type: ignore[operator]

    z = torch.zeros(1, 2, 4, dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(loss(z), z)
    expected = numeric_gradient(loss, z.detach(), h=1e-5)
    assert float(got.abs().min()) > 0
    assert torch.allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_gradients_match_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    z = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    for op in (scale, unscale):

        def f(x: Tensor, z: Tensor, op: object = op) -> Tensor:
            return op(x, SeparableWarp.from_logits(z))  # type: ignore[operator]

        assert torch.autograd.gradcheck(f, (x, z))
        assert torch.autograd.gradgradcheck(f, (x, z))


def test_weights_have_central_derivatives_at_pixels() -> None:
    u = torch.tensor([[0.25, 0.5]], dtype=torch.float64, requires_grad=True)
    row = torch.tensor([5.0, 1.0, 2.0, 8.0, 3.0], dtype=torch.float64)
    (axis_weights(u, 5) @ row).sum().backward()
    assert u.grad is not None
    assert (u.grad / 4).tolist() == [[(2 - 5) / 2, (8 - 1) / 2]]


def test_axis_weights_sum_to_one_everywhere() -> None:
    assert torch.allclose(axis_weights(torch.linspace(0, 1, 77).view(1, -1), 13).sum(-1), torch.ones(1, 77))


@pytest.mark.parametrize(("n", "m"), [(16, 5), (224, 16), (7, 7), (5, 1)])
def test_averaging_keeps_constants_ramps_and_corners(n: int, m: int) -> None:
    a = averaging_weights(n, m, dtype=torch.float64)
    assert a.shape == (m, n)
    assert torch.allclose(a.sum(1), torch.ones(m, dtype=torch.float64))
    if m > 1:
        ramp = torch.linspace(0, 1, n, dtype=torch.float64)
        inner = (a @ ramp)[1:-1]
        assert torch.allclose(inner, torch.linspace(0, 1, m, dtype=torch.float64)[1:-1], atol=0.01)
    alternating = (-1.0) ** torch.arange(n, dtype=torch.float64)
    if m < n / 2:
        assert float((a @ alternating).abs().max()) < 0.3  # what aliases is averaged away
    with pytest.raises(ShapeError, match="cannot reduce"):
        averaging_weights(n, n + 1, dtype=torch.float64)


def test_pixel_centres() -> None:
    assert pixel_centres(3, torch.zeros(0)).tolist() == [0.0, 0.5, 1.0]
    assert pixel_centres(1, torch.zeros(0)).tolist() == [0.5]


# label maps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool])
@pytest.mark.parametrize("size", [(7, 12), (80, 65), (224, 224)], ids=str)
def test_the_identity_leaves_labels_untouched(dtype: torch.dtype, size: tuple[int, int]) -> None:
    labels = torch.randint(0, 20, (2, *size)).to(dtype)
    for op in (scale, unscale):
        out = op(labels, SeparableWarp.identity(2, 5))
        assert out.dtype == dtype
        assert torch.equal(out, labels)


@pytest.mark.parametrize("size", [(23, 31), (70, 96)], ids=str)
def test_labels_sample_at_the_coordinates_of_images(size: tuple[int, int]) -> None:
    labels = torch.randint(0, 20, (3, *size), generator=torch.Generator().manual_seed(0))
    warp = random_warp()
    for op, inverse in ((scale, True), (unscale, False)):
        got = op(labels, warp)
        expected = reference(labels.unsqueeze(1), warp, inverse=inverse, mode="nearest")[:, 0].long()
        grid = (
            (reference_grid(warp, *size, inverse=inverse) + 1) / 2 * torch.tensor([size[1] - 1, size[0] - 1])
        )
        halfway = ((grid - grid.floor() - 0.5).abs() < 1e-3).any(-1)  # either neighbour is nearest
        assert torch.equal(got[~halfway], expected[~halfway])
        # and the very same coordinates as bilinear sampling of a ramp gives
        ramp = torch.linspace(0, size[1] - 1, size[1]).expand(3, 1, *size)
        columns = torch.arange(size[1]).expand(3, *size)
        assert torch.equal(op(columns, warp)[~halfway], op(ramp, warp)[:, 0].round().long()[~halfway])


def test_labels_with_channels_and_channels_last() -> None:
    labels = torch.randint(0, 20, (3, 2, 9, 11))
    warp = random_warp()
    first = unscale(labels, warp)
    last = unscale(labels.permute(0, 2, 3, 1), warp, "nhwc")
    assert torch.equal(first, last.permute(0, 3, 1, 2))
    assert torch.equal(first[:, 0], unscale(labels[:, 0], warp))


def test_images_can_be_sampled_nearest() -> None:
    x = torch.rand(3, 2, 9, 11)
    assert set(unscale(x, random_warp(), mode="nearest").flatten().tolist()) <= set(x.flatten().tolist())


# half precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(14, 14), (96, 130)], ids=["matrix", "grid"])
def test_half_precision_rounds_values_not_coordinates(dtype: torch.dtype, size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size).to(dtype)
    warp = random_warp(2)
    out = unscale(x, warp)
    assert out.dtype == dtype
    error = (out.double() - reference(x, warp, inverse=False)).abs().max()
    assert float(error) <= 4 * torch.finfo(dtype).eps  # values and weights are rounded, twice each


@pytest.mark.parametrize("size", [(14, 14), (96, 130)], ids=["matrix", "grid"])
def test_coordinates_stay_float32_under_autocast(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    z = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0))
    plain = SeparableWarp.from_logits(z)
    with torch.autocast("cpu", torch.bfloat16):
        warp = SeparableWarp.from_logits(z)
        out = unscale(x, warp)
        labels = unscale((x[:, 0] * 20).long(), warp)
    assert warp.dtype == torch.float32
    assert torch.equal(warp.x.values, plain.x.values)
    assert torch.equal(labels, unscale((x[:, 0] * 20).long(), plain))
    assert float((out.float() - unscale(x, plain)).abs().max()) <= 4 * torch.finfo(torch.bfloat16).eps


# bad input --------------------------------------------------------------------------------------

IMAGE = torch.zeros(2, 3, 4, 4)
ID = SeparableWarp.identity(2)
BAD = {
    "mismatched batch": (lambda: scale(IMAGE, SeparableWarp.identity(3)), ShapeError, "3 warps do not fit"),
    "empty map": (lambda: scale(torch.zeros(2, 3, 0, 4), ID), ShapeError, "empty map"),
    "empty labels": (lambda: scale(torch.zeros(2, 0, 4).long(), ID), ShapeError, "empty map"),
    "wrong rank": (lambda: scale(torch.zeros(3, 4, 4), ID), ShapeError, "expected an image"),
    "empty output": (lambda: scale(IMAGE, ID, size=(0, 4)), ShapeError, "at least 1 x 1"),
    "another device": (lambda: scale(IMAGE, ID.to("meta")), DTypeError, r"warp is on meta, the input on cpu"),
    "labels interpolated": (
        lambda: scale(IMAGE.long(), ID, mode="bilinear"),
        DTypeError,
        "cannot be interpolated",
    ),
    "unknown mode": (lambda: scale(IMAGE, ID, mode="bicubic"), UnknownNameError, "unknown mode 'bicubic'"),
    "no warp": (lambda: unscale(IMAGE, torch.zeros(2)), DTypeError, "expected a SeparableWarp"),
    "unknown layout": (lambda: scale(IMAGE, ID, "hwc"), UnknownNameError, "unknown layout 'hwc'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_error(case: str) -> None:
    call, error, text = BAD[case]
    with pytest.raises(error, match=text) as caught:
        call()
    assert isinstance(caught.value, LSEError)
    assert "\n" not in str(caught.value)
