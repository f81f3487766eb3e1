"""Bilinear sampling whose first and second derivatives are right, at exact pixel positions too.

`F.grid_sample` has no second derivative, and at exact pixel positions (the identity!) the derivative
of one side only. Here the derivative at a pixel is the mean of both sides, and gradients have
gradients. Two autograd functions, each with a fast first backward and a plain one for higher orders: one
by matrix products or taps, for separable coordinates, and one by `F.grid_sample`, for any.

Positions are in pixels, 0 the centre of the first.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lse_core.constants import constant

__all__ = [
    "hat",
    "on_pixels",
    "pixel_numbers",
    "pixel_weights",
    "plain_grid_sample",
    "sample_at",
    "sample_grid",
    "sample_separable",
]


def hat(t: Tensor) -> Tensor:
    """max(0, 1 - |t|) elementwise, with the mean of both sides as derivative at its kinks -1, 0 and 1."""
    rest = 1.0 - t.abs()  # autograd gives |t| the derivative 0 at 0, the mean of -1 and 1
    if not torch.is_grad_enabled() or (torch.compiler.is_exporting() and not t.requires_grad):
        return rest.relu()  # the same values; every runtime has this operation
    return torch.maximum(rest, rest.new_zeros(()))  # where both are equal, each gets half of the gradient


@constant
def pixel_numbers(n: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """0, 1, ..., n - 1. The tensor is shared: do not write to it."""
    return torch.arange(n, device=device, dtype=dtype)


def pixel_weights(s: Tensor, n: int) -> Tensor:
    """Bilinear weights of n pixels at positions s (..., m) in pixels, (..., m, n)."""
    return hat(s.unsqueeze(-1) - pixel_numbers(n, device=s.device, dtype=s.dtype))


def _hat_slope(t: Tensor) -> Tensor:
    """Derivative of `hat`; constant between kinks, so autograd finds nothing to differentiate."""
    return ((t - 1.0).sign() + (t + 1.0).sign()) * 0.5 - t.sign()


def on_pixels(s: Tensor, n: int) -> Tensor:
    """Move positions onto a pixel from which only rounding separates them; the gradient passes unchanged.

    Coordinates of the identity come out of float arithmetic a hair left or right of their pixels, and
    with them the side whose derivative is taken.
    """
    nearest = s.round()
    off = nearest - s
    rounding = 3.0 * torch.finfo(s.dtype).eps * n
    return s + torch.where(off.abs() <= rounding, off, torch.zeros_like(off)).detach()


# separable coordinates --------------------------------------------------------------------------


def sample_separable(x: Tensor, s_x: Tensor, s_y: Tensor, kernel: str) -> Tensor:
    """Sample a map at separable positions s_x (B, m_w) and s_y (B, m_h).

    Args:
        x: (B, H, W, C), or (B, C, H, W) for the kernel "grid_sample"; any floating dtype.
        s_x: columns, in pixels within [0, W-1].
        s_y: rows, in pixels within [0, H-1].
        kernel: "products" multiplies by weight matrices, best on GPUs; "taps" sums the four neighbours
            of each position, best on CPUs and many channels (wants at least 2 x 2 pixels, and float32
            or float64); "grid_sample" is torch's own.

    Returns:
        (B, m_h, m_w, C), or (B, C, m_h, m_w), in the dtype of `x`.
    """
    if kernel == "grid_sample":
        return sample_at(x, s_x.unsqueeze(1), s_y.unsqueeze(2))
    # the way through autograd costs as much as small samplings themselves
    run = _Separable.apply if torch.is_grad_enabled() else _Separable.forward
    out: Tensor = run(x, s_x, s_y, kernel)
    return out


def _weights(s: Tensor, n: int, like: Tensor, *, slope: bool = False) -> Tensor:
    t = s.unsqueeze(-1) - pixel_numbers(n, device=s.device, dtype=s.dtype)
    return (_hat_slope(t) if slope else hat(t)).to(like.dtype)


def _along_y(w: Tensor, x: Tensor) -> Tensor:
    b, h, width, c = x.shape
    return (w @ x.reshape(b, h, width * c)).view(b, w.shape[1], width, c)


def _along_x(w: Tensor, x: Tensor) -> Tensor:
    return w.unsqueeze(1) @ x


def _taps(x: Tensor, s_x: Tensor, s_y: Tensor, along: str = "") -> Tensor:
    """The four pixels around each position, weighted and summed in one pass; or their slope along an axis."""
    b, h, w, c = x.shape
    m_h, m_w = s_y.shape[1], s_x.shape[1]
    i, j = s_y.floor().clamp(0, h - 2), s_x.floor().clamp(0, w - 2)
    pair_y, pair_x = _pair(s_y - i, along == "y"), _pair(s_x - j, along == "x")
    first_row = (i.long() + pixel_numbers(b, device=x.device, dtype=torch.long).view(b, 1) * h) * w
    corner = first_row.view(b, m_h, 1) + j.long().view(b, 1, m_w)
    corners = torch.stack([corner, corner + 1, corner + w, corner + w + 1], dim=-1)
    weights = pair_y.view(b, m_h, 1, 2, 1) * pair_x.view(b, 1, m_w, 1, 2)
    bags = F.embedding_bag(
        corners.view(-1, 4),
        x.reshape(-1, c),
        per_sample_weights=weights.view(-1, 4).to(x.dtype),
        mode="sum",
    )
    return bags.view(b, m_h, m_w, c)


def _pair(share: Tensor, slope: bool) -> Tensor:
    """Weights of the two neighbours on an axis, or the derivatives of these."""
    if slope:
        return torch.stack([-torch.ones_like(share), torch.ones_like(share)], dim=-1)
    return torch.stack([1.0 - share, share], dim=-1)


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, s_x: Tensor, s_y: Tensor, kernel: str) -> Tensor:
        if kernel == "taps":
            return _taps(x, s_x, s_y)
        h, w = x.shape[1:3]
        return _along_x(_weights(s_x, w, x), _along_y(_weights(s_y, h, x), x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, s_x, s_y, ctx.kernel = inputs
        ctx.save_for_backward(x, s_x, s_y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, s_x, s_y = ctx.saved_tensors
        g = g.to(x.dtype)  # under autocast the product was in half precision
        # with gradients of gradients asked for, only the products are differentiable
        taps = ctx.kernel == "taps" and not torch.is_grad_enabled()
        backward = _taps_backward if taps else _products_backward
        return *backward(g, x, s_x, s_y, ctx.needs_input_grad[:3]), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        *tensors, kernel = args
        folded = [_fold(t, d, info.batch_size) for t, d in zip(tensors, in_dims, strict=False)]
        out = _Separable.apply(*folded, kernel)
        return out.unflatten(0, (info.batch_size, -1)), 0


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _products_backward(g: Tensor, x: Tensor, s_x: Tensor, s_y: Tensor, need: tuple[bool, ...]) -> Gradients:
    """Gradients to the map and the positions, channels last, in differentiable operations."""
    h, w = x.shape[1:3]
    w_x, w_y = _weights(s_x, w, x), _weights(s_y, h, x)
    back = _along_x(w_x.transpose(1, 2).contiguous(), g)
    grad_x = _along_y(w_y.transpose(1, 2), back) if need[0] else None
    if not (need[1] or need[2]):
        return grad_x, None, None
    slope_x = _along_x(_weights(s_x, w, x, slope=True), _along_y(w_y, x))
    slope_y = _along_y(_weights(s_y, h, x, slope=True), x)
    return grad_x, (g * slope_x).sum((1, 3)).to(s_x.dtype), (back * slope_y).sum((2, 3)).to(s_y.dtype)


# A few samples at a time stay in the processor's cache between one pass over them and the next, and
# need a few samples' worth of memory. In numbers: some 2 MB.
CHUNK = 2**19


def _taps_backward(g: Tensor, x: Tensor, s_x: Tensor, s_y: Tensor, need: tuple[bool, ...]) -> Gradients:
    """The same, quicker: slopes by neighbours, a few samples at a time."""
    h, w = x.shape[1:3]
    grads = [
        torch.empty_like(t, memory_format=torch.contiguous_format) if n else None
        for t, n in zip((x, s_x, s_y), need, strict=True)
    ]
    grad_x, grad_s_x, grad_s_y = grads
    step = max(1, CHUNK // x[0].numel())
    for start in range(0, x.shape[0], step):
        i = slice(start, start + step)
        if grad_x is not None:
            w_x, w_y = _weights(s_x[i], w, x), _weights(s_y[i], h, x)
            back = _along_x(w_x.transpose(1, 2).contiguous(), g[i])
            grad_x[i] = _along_y(w_y.transpose(1, 2), back)
        if grad_s_x is not None:
            grad_s_x[i] = _taps(x[i], s_x[i], s_y[i], "x").mul_(g[i]).sum((1, 3))
        if grad_s_y is not None:
            grad_s_y[i] = _taps(x[i], s_x[i], s_y[i], "y").mul_(g[i]).sum((2, 3))
    # on a pixel two neighbours give the slope of one side only
    at = torch.cat([_with_pixels(s_x, w), _with_pixels(s_y, h)]).unique()
    if at.numel() and (need[1] or need[2]):
        _, exact_x, exact_y = _products_backward(g[at], x[at], s_x[at], s_y[at], (False, need[1], need[2]))
        for whole, part in ((grad_s_x, exact_x), (grad_s_y, exact_y)):
            if whole is not None and part is not None:
                whole[at] = part
    return grad_x, grad_s_x, grad_s_y


def _with_pixels(s: Tensor, n: int) -> Tensor:
    """Samples of the batch with a position on a pixel inside the picture, where two slopes meet."""
    return ((s == s.round()) & (s > 0) & (s < n - 1)).any(1).nonzero().view(-1)


def _fold(t: Tensor, dim: int | None, size: int) -> Tensor:
    """Put vmap's axis into the batch axis."""
    t = t.unsqueeze(0).expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
    return t.flatten(0, 1)


# any coordinates, channels first ----------------------------------------------------------------


def sample_grid(x: Tensor, s: Tensor) -> Tensor:
    """Sample (B, C, H, W) at positions s (B, m_h, m_w, 2), xy order, in pixels; (B, C, m_h, m_w).

    Beyond the border the picture is held.

    Computed in the dtype of `s`, returned in that of `x`: positions in half precision would miss
    whole pixels.
    """
    return sample_at(x, s[..., 0], s[..., 1])


def plain_grid_sample(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    """`F.grid_sample` of (B, C, H, W) at separable positions; one-sided derivatives, no second ones."""
    full = x.to(s_x.dtype)
    return _grid_sample(full, _grid(full, s_x.unsqueeze(1), s_y.unsqueeze(2))).to(x.dtype)


def sample_at(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    """`sample_grid` at columns s_x and rows s_y, which broadcast to (B, m_h, m_w)."""
    full = x.to(s_x.dtype)
    if torch.compiler.is_compiling():  # the compiler derives gradients itself, of plain operations
        return _grid_sample(full, _grid(full, s_x, s_y)).to(x.dtype)
    run = _Grid.apply if torch.is_grad_enabled() else _Grid.forward
    out: Tensor = run(full, s_x, s_y)
    return out.to(x.dtype)


def _grid(x: Tensor, *s: Tensor) -> Tensor:
    """The grid that `F.grid_sample` wants, (B, m_h, m_w, 2) in [-1, 1]."""
    # not by a tensor of two numbers, which would have to be sent to the device
    scaled = [a * per_pixel - 1.0 for a, per_pixel in zip(s, _steps(x), strict=True)]
    return torch.stack(torch.broadcast_tensors(*scaled), dim=-1)


def _steps(x: Tensor) -> tuple[float, float]:
    """What one pixel along x, and along y, is in coordinates from -1 to 1."""
    h, w = x.shape[2:]
    return 2.0 / max(w - 1, 1), 2.0 / max(h - 1, 1)


def _grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


class _Grid(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
        return _grid_sample(x, _grid(x, s_x, s_y))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        backward = _gathered_backward if torch.is_grad_enabled() else _native_backward
        x, s_x, s_y = ctx.saved_tensors
        return backward(g, x, s_x, s_y, ctx.needs_input_grad)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Tensor) -> tuple[Tensor, int]:
        out = _Grid.apply(*(_fold(t, d, info.batch_size) for t, d in zip(args, in_dims, strict=True)))
        return out.unflatten(0, (info.batch_size, -1)), 0


def _nudges(x: Tensor, *s: Tensor) -> list[Tensor]:
    """Steps off the pixel for positions on one inside the picture, small against a pixel; else 0."""
    nudges = []
    for a, n in zip(s, (x.shape[3], x.shape[2]), strict=True):
        on = (a == a.round()) & (a > 0) & (a < n - 1)
        nudges.append(torch.where(on, 32.0 * torch.finfo(a.dtype).eps * n, 0.0).to(a.dtype))
    return nudges


def _native_backward(g: Tensor, x: Tensor, s_x: Tensor, s_y: Tensor, need: tuple[bool, ...]) -> Gradients:
    """torch's own backward, a second time from the other side where positions are on pixels."""

    def backward(rows: Any, grid: Tensor, *want: bool) -> tuple[Tensor, Tensor]:
        # 0, 1: bilinear, border
        return torch.ops.aten.grid_sampler_2d_backward(g[rows], x[rows], grid, 0, 1, True, list(want))

    need_s = need[1] or need[2]
    off_x, off_y = _nudges(x, s_x, s_y)
    grad_x, grad_grid = backward(slice(None), _grid(x, s_x + off_x, s_y + off_y), need[0], need_s)
    if not need_s:
        return grad_x, None, None
    other = _grid(x, s_x - off_x, s_y - off_y)
    if x.device.type != "cpu":  # asking which samples need it would wait for the device
        grad_grid = 0.5 * (grad_grid + backward(slice(None), other, False, True)[1])
    elif (at := torch.cat([off_x.flatten(1), off_y.flatten(1)], 1).any(1).nonzero().view(-1)).numel():
        grad_grid[at] = 0.5 * (grad_grid[at] + backward(at, other[at], False, True)[1])
    # the derivative of [-1, 1] coordinates in pixels
    per_x, per_y = (grad_grid[..., i] * step for i, step in enumerate(_steps(x)))
    return grad_x if need[0] else None, per_x.sum_to_size(s_x.shape), per_y.sum_to_size(s_y.shape)


def _gathered_backward(g: Tensor, x: Tensor, s_x: Tensor, s_y: Tensor, need: tuple[bool, ...]) -> Gradients:
    """The same by gathering, in operations that autograd can differentiate again."""
    off_x, off_y = _nudges(x, s_x.detach(), s_y.detach())
    grad_x, right_x, right_y = _gathered(g, x, s_x + off_x, s_y + off_y)
    _, left_x, left_y = _gathered(g, x, s_x - off_x, s_y - off_y)
    mean_x, mean_y = 0.5 * (left_x + right_x), 0.5 * (left_y + right_y)
    return grad_x, mean_x.sum_to_size(s_x.shape), mean_y.sum_to_size(s_y.shape)


def _gathered(g: Tensor, x: Tensor, s_x: Tensor, s_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b, c, h, w = x.shape
    s_x, s_y = torch.broadcast_tensors(s_x, s_y)
    # beyond the border the picture is held: no slope there
    held_x, held_y = s_x.clamp(0, w - 1), s_y.clamp(0, h - 1)
    # a position that is no number makes the gradient of its own image none, and no index out of range
    j = held_x.detach().floor().nan_to_num(0.0).clamp(0, max(w - 2, 0)).long()
    i = held_y.detach().floor().nan_to_num(0.0).clamp(0, max(h - 2, 0)).long()
    fx, fy = (held_x - j).unsqueeze(1), (held_y - i).unsqueeze(1)
    flat = x.reshape(b, c, h * w)
    grad_flat = torch.zeros_like(flat)
    corners = {}
    for dy, weight_y in ((0, 1.0 - fy), (1, fy)):
        for dx, weight_x in ((0, 1.0 - fx), (1, fx)):
            index = (i + dy).clamp_max(h - 1) * w + (j + dx).clamp_max(w - 1)
            index = index.view(b, 1, -1).expand(-1, c, -1)
            corners[dy, dx] = flat.gather(2, index).view(g.shape)
            grad_flat = grad_flat.scatter_add(2, index, (g * weight_y * weight_x).flatten(2))
    slope_x = (corners[0, 1] - corners[0, 0]) * (1.0 - fy) + (corners[1, 1] - corners[1, 0]) * fy
    slope_y = (corners[1, 0] - corners[0, 0]) * (1.0 - fx) + (corners[1, 1] - corners[0, 1]) * fx
    inside_x, inside_y = (s_x == held_x).to(g.dtype), (s_y == held_y).to(g.dtype)
    return grad_flat.view(x.shape), (g * slope_x).sum(1) * inside_x, (g * slope_y).sum(1) * inside_y
