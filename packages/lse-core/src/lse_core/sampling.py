"""Bilinear sampling whose gradients are right: at pixels, and twice.

`F.grid_sample` has no second derivative, and at exact pixel positions (the identity!) the derivative
of one side only. Here the derivative at a pixel is the mean of both sides, and gradients have
gradients. Two autograd functions, each with a fast first backward and a plain one for higher orders:

- `sample_separable` for separable coordinates, by matrix products, taps or `F.grid_sample`;
- `sample_grid` for any coordinates, by `F.grid_sample`.

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
    """0, 1, ..., n - 1; never to be written to."""
    return torch.arange(n, device=device, dtype=dtype)


def pixel_weights(s: Tensor, n: int) -> Tensor:
    """Bilinear weights of n pixels at positions s (..., m) in pixels, (..., m, n)."""
    return hat(s.unsqueeze(-1) - pixel_numbers(n, device=s.device, dtype=s.dtype))


def _hat_slope(t: Tensor) -> Tensor:
    """Derivative of `hat`; constant between kinks, so autograd finds nothing to differentiate."""
    return ((t - 1.0).sign() + (t + 1.0).sign()) * 0.5 - t.sign()


def on_pixels(s: Tensor, n: int) -> Tensor:
    """Positions that rounding alone keeps off a pixel, put on it; the gradient passes.

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
        if kernel == "grid_sample":
            return _grid_sample(x.to(s_x.dtype), _axes_grid(x, s_x, s_y)).to(x.dtype)
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
        need = ctx.needs_input_grad[:3]
        x, s_x, s_y = ctx.saved_tensors
        g = g.to(x.dtype)  # under autocast the product was in half precision
        # with gradients of gradients asked for, only the products are differentiable
        first = not torch.is_grad_enabled()
        if ctx.kernel != "grid_sample":
            backward = _taps_backward if first and ctx.kernel == "taps" else _products_backward
            return *backward(g, x, s_x, s_y, need), None
        if first:
            return *_grid_backward(g, x, s_x, s_y, need), None
        g, x = g.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)
        grad_x, grad_s_x, grad_s_y = _products_backward(g, x, s_x, s_y, need)
        return None if grad_x is None else grad_x.permute(0, 3, 1, 2), grad_s_x, grad_s_y, None

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
    need_x, need_s_x, need_s_y = need
    w_x, w_y = _weights(s_x, w, x), _weights(s_y, h, x)
    back = _along_x(w_x.transpose(1, 2).contiguous(), g) if need_x or need_s_y else None
    grad_x = grad_s_x = grad_s_y = None
    if need_x and back is not None:
        grad_x = _along_y(w_y.transpose(1, 2), back)
    if need_s_x:
        slope = _along_x(_weights(s_x, w, x, slope=True), _along_y(w_y, x))
        grad_s_x = (g * slope).sum((1, 3)).to(s_x.dtype)
    if need_s_y and back is not None:
        slope = _along_y(_weights(s_y, h, x, slope=True), x)
        grad_s_y = (back * slope).sum((2, 3)).to(s_y.dtype)
    return grad_x, grad_s_x, grad_s_y


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


def _grid_backward(g: Tensor, x: Tensor, s_x: Tensor, s_y: Tensor, need: tuple[bool, ...]) -> Gradients:
    """torch's own backward, a second time from the other side where positions are on pixels."""
    h, w = x.shape[2:]
    need_s = need[1] or need[2]
    nudge_x, nudge_y = (_nudge(s, n) for s, n in ((s_x, w), (s_y, h)))
    g, full = g.to(s_x.dtype), x.to(s_x.dtype)
    grid = _axes_grid(x, s_x + nudge_x, s_y + nudge_y)
    grad_x, grad_grid = _grid_sample_backward(g, full, grid, need[0], need_s)
    if need_s and x.device.type != "cpu":  # asking which samples need it would wait for the device
        other = _grid_sample_backward(g, full, _axes_grid(x, s_x - nudge_x, s_y - nudge_y), False, True)[1]
        grad_grid = 0.5 * (grad_grid + other)
    elif need_s and (at := torch.cat([nudge_x, nudge_y], dim=1).any(1).nonzero().view(-1)).numel():
        grid = _axes_grid(x, (s_x - nudge_x)[at], (s_y - nudge_y)[at])
        other = _grid_sample_backward(g[at], full[at], grid, False, True)[1]
        grad_grid[at] = 0.5 * (grad_grid[at] + other)
    if not need_s:
        return grad_x.to(x.dtype), None, None
    return (
        grad_x.to(x.dtype) if need[0] else None,
        grad_grid[..., 0].sum(1) * (2.0 / max(w - 1, 1)),
        grad_grid[..., 1].sum(2) * (2.0 / max(h - 1, 1)),
    )


def _axes_grid(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    """The grid that `F.grid_sample` wants, (B, m_h, m_w, 2) in [-1, 1], of positions on each axis."""
    h, w = x.shape[2:]
    shape = (s_x.shape[0], s_y.shape[1], s_x.shape[1])
    g_x, g_y = s_x * (2.0 / max(w - 1, 1)) - 1.0, s_y * (2.0 / max(h - 1, 1)) - 1.0
    return torch.stack([g_x.unsqueeze(1).expand(shape), g_y.unsqueeze(2).expand(shape)], dim=-1)


def _nudge(s: Tensor, n: int) -> Tensor:
    """A step off the pixel for positions on one inside the picture, small against a pixel; else 0."""
    step = 32.0 * torch.finfo(s.dtype).eps * n
    on = (s == s.round()) & (s > 0) & (s < n - 1)
    return torch.where(on, step, 0.0).to(s.dtype)


def _grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _grid_sample_backward(
    g: Tensor, x: Tensor, grid: Tensor, want_x: bool, want_grid: bool
) -> tuple[Tensor, Tensor]:
    # 0, 1: bilinear, border
    return torch.ops.aten.grid_sampler_2d_backward(g, x, grid, 0, 1, True, [want_x, want_grid])


def plain_grid_sample(x: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    """`F.grid_sample` of (B, C, H, W) at separable positions; one-sided derivatives, no second ones."""
    return _grid_sample(x.to(s_x.dtype), _axes_grid(x, s_x, s_y)).to(x.dtype)


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
    full = x.to(s.dtype)
    if torch.compiler.is_compiling():  # the compiler derives gradients itself, of plain operations
        return _grid_sample(full, _grid(full, s)).to(x.dtype)
    out: Tensor = _Grid.apply(full, s)
    return out.to(x.dtype)


def _grid(x: Tensor, s: Tensor) -> Tensor:
    # not by a tensor of two numbers, which would have to be sent to the device
    return torch.stack([s[..., i] * per_pixel - 1.0 for i, per_pixel in enumerate(_steps(x))], dim=-1)


def _steps(x: Tensor) -> tuple[float, float]:
    """What one pixel along x, and along y, is in coordinates from -1 to 1."""
    h, w = x.shape[2:]
    return 2.0 / max(w - 1, 1), 2.0 / max(h - 1, 1)


class _Grid(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, s: Tensor) -> Tensor:
        return _grid_sample(x, _grid(x, s))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, s = ctx.saved_tensors
        need_x, need_s = ctx.needs_input_grad
        grad_x, grad_s = (_plain_backward if torch.is_grad_enabled() else _native_backward)(g, x, s, need_s)
        return (grad_x if need_x else None), (grad_s if need_s else None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, s: Tensor) -> tuple[Tensor, int]:
        out = _Grid.apply(_fold(x, in_dims[0], info.batch_size), _fold(s, in_dims[1], info.batch_size))
        return out.unflatten(0, (info.batch_size, -1)), 0


def _nudges(x: Tensor, s: Tensor) -> Tensor:
    h, w = x.shape[2:]
    return torch.stack([_nudge(s[..., 0], w), _nudge(s[..., 1], h)], dim=-1)


def _native_backward(g: Tensor, x: Tensor, s: Tensor, need_s: bool) -> tuple[Tensor, Tensor]:
    """torch's own backward, a second time from the other side where positions are on pixels."""
    nudge = _nudges(x, s)
    # where asking costs a wait for the device, not asking costs less
    twice = need_s and (x.device.type != "cpu" or bool(nudge.any()))
    at = s + nudge if twice else s
    grad_x, grad_grid = _grid_sample_backward(g, x, _grid(x, at), True, need_s)
    if twice:
        other = _grid_sample_backward(g, x, _grid(x, s - nudge), False, True)[1]
        grad_grid = 0.5 * (grad_grid + other)
    if not need_s:
        return grad_x, grad_grid
    # the derivative of [-1, 1] coordinates in pixels
    return grad_x, torch.stack([grad_grid[..., i] * step for i, step in enumerate(_steps(x))], dim=-1)


def _plain_backward(g: Tensor, x: Tensor, s: Tensor, need_s: bool) -> tuple[Tensor, Tensor]:
    """The same by gathering, in operations that autograd can differentiate again."""
    nudge = _nudges(x, s.detach())
    grad_x, right = _gathered_backward(g, x, s + nudge)
    left = _gathered_backward(g, x, s - nudge)[1]
    return grad_x, 0.5 * (left + right)


def _gathered_backward(g: Tensor, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    b, c, h, w = x.shape
    # beyond the border the picture is held: no slope there
    held = torch.stack([s[..., 0].clamp(0, w - 1), s[..., 1].clamp(0, h - 1)], dim=-1)
    floor = held.detach().floor()
    j, i = floor[..., 0].clamp(0, max(w - 2, 0)).long(), floor[..., 1].clamp(0, max(h - 2, 0)).long()
    fx, fy = (held[..., 0] - j).unsqueeze(1), (held[..., 1] - i).unsqueeze(1)
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
    inside = (s.detach() == held.detach()).to(g.dtype)
    grad_s = torch.stack([(g * slope_x).sum(1), (g * slope_y).sum(1)], dim=-1) * inside
    return grad_flat.view(x.shape), grad_s
