"""Bilinear sampling whose gradients are right: at pixels, and twice.

`F.grid_sample` has no second derivative, and at exact pixel positions (the identity!) the derivative
of one side only. Here the derivative at a pixel is the mean of both sides, and gradients have
gradients. Two autograd functions, each with a fast first backward and a plain one for higher orders:

- `sample_channels_last` for separable coordinates on (B, H, W, C), by matrix products or by two taps;
- `sample_grid` for any coordinates on (B, C, H, W), by `F.grid_sample`.

Positions are in pixels, 0 the centre of the first.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["hat", "on_pixels", "sample_channels_last", "sample_grid"]


def hat(t: Tensor) -> Tensor:
    """max(0, 1 - |t|) elementwise, with the mean of both sides as derivative at its kinks -1, 0 and 1."""
    c = t.clamp(-2.0, 2.0)
    return ((c - 1.0).abs() + (c + 1.0).abs()) * 0.5 - c.abs()


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
    rounding = 8.0 * torch.finfo(s.dtype).eps * n
    return s + torch.where(off.abs() <= rounding, off, torch.zeros_like(off)).detach()


# separable coordinates, channels last -----------------------------------------------------------


def sample_channels_last(x: Tensor, s_x: Tensor, s_y: Tensor, *, taps: bool) -> Tensor:
    """Sample (B, H, W, C) at separable positions s_x (B, m_w) and s_y (B, m_h); (B, m_h, m_w, C).

    Args:
        x: the map, any floating dtype.
        s_x: columns, in pixels within [0, W-1].
        s_y: rows, in pixels within [0, H-1].
        taps: read the two neighbours of each position rather than multiply by weight matrices: less
            work on large maps, worth it from some 16 channels on. Wants at least 2 x 2 pixels.
    """
    out: Tensor = _ChannelsLast.apply(x, s_x, s_y, taps)
    return out


def _weights(s: Tensor, n: int, like: Tensor, *, slope: bool = False) -> Tensor:
    t = s.unsqueeze(-1) - torch.arange(n, device=s.device, dtype=s.dtype)
    return (_hat_slope(t) if slope else hat(t)).to(like.dtype)


def _along_y(w: Tensor, x: Tensor) -> Tensor:
    b, h, width, c = x.shape
    return (w @ x.reshape(b, h, width * c)).view(b, w.shape[1], width, c)


def _along_x(w: Tensor, x: Tensor) -> Tensor:
    return w.unsqueeze(1) @ x


def _split(s: Tensor, n: int) -> tuple[Tensor, Tensor]:
    left = s.floor().clamp(0, n - 2)
    return left.long(), s - left


def _two_rows(x: Tensor, s_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows above and below each position, (B*m_h, W*C) each, and the share of the lower one."""
    b, h = x.shape[:2]
    i, share = _split(s_y, h)
    i = (i + torch.arange(b, device=x.device).view(b, 1) * h).view(-1)
    rows = x.reshape(b * h, -1)
    return rows.index_select(0, i), rows.index_select(0, i + 1), share.to(x.dtype).view(-1, 1)


def _two_columns(x: Tensor, s_x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels left and right of each position, (B*H*m_w, C) each, and the share of the right one."""
    b, h, w, c = x.shape
    j, share = _split(s_x, w)
    start = torch.arange(b * h, device=x.device).view(b, h, 1) * w
    j = (start + j.view(b, 1, -1)).view(-1)
    pixels = x.reshape(-1, c)
    share = share.to(x.dtype).view(b, 1, -1, 1).expand(b, h, -1, 1).reshape(-1, 1)
    return pixels.index_select(0, j), pixels.index_select(0, j + 1), share


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, s_x: Tensor, s_y: Tensor, taps: bool) -> Tensor:
        b, h, w, c = x.shape
        if not taps:
            return _along_x(_weights(s_x, w, x), _along_y(_weights(s_y, h, x), x))
        rows = torch.lerp(*_two_rows(x, s_y)).view(b, -1, w, c)
        return torch.lerp(*_two_columns(rows, s_x)).view(b, s_y.shape[1], s_x.shape[1], c)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, s_x, s_y, ctx.taps = inputs
        ctx.save_for_backward(x, s_x, s_y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, s_x, s_y = ctx.saved_tensors
        b, h, w, c = x.shape
        g = g.to(x.dtype)  # under autocast the product was in half precision
        w_x, w_y = _weights(s_x, w, x), _weights(s_y, h, x)
        need_x, need_s_x, need_s_y, _ = ctx.needs_input_grad
        back = _along_x(w_x.transpose(1, 2).contiguous(), g) if need_x or need_s_y else None
        grad_x = grad_s_x = grad_s_y = None
        if need_x and back is not None:
            grad_x = _along_y(w_y.transpose(1, 2), back)
        # with gradients of gradients asked for, only the products below are differentiable
        quick = ctx.taps and not torch.is_grad_enabled()
        if need_s_x:
            if quick and not _on_a_pixel(s_x, w):
                rows = torch.lerp(*_two_rows(x, s_y)).view(b, -1, w, c)
                left, right, _ = _two_columns(rows, s_x)
                slope = (right - left).view(g.shape)
            else:
                slope = _along_x(_weights(s_x, w, x, slope=True), _along_y(w_y, x))
            grad_s_x = (g * slope).sum((1, 3)).to(s_x.dtype)
        if need_s_y and back is not None:
            if quick and not _on_a_pixel(s_y, h):
                above, below, _ = _two_rows(x, s_y)
                slope = (below - above).view(back.shape)
            else:
                slope = _along_y(_weights(s_y, h, x, slope=True), x)
            grad_s_y = (back * slope).sum((2, 3)).to(s_y.dtype)
        return grad_x, grad_s_x, grad_s_y, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        *tensors, taps = args
        folded = [_fold(t, d, info.batch_size) for t, d in zip(tensors, in_dims, strict=False)]
        out = _ChannelsLast.apply(*folded, taps)
        return out.unflatten(0, (info.batch_size, -1)), 0


def _on_a_pixel(s: Tensor, n: int) -> bool:
    """Whether a position inside the picture is on a pixel, where the two sides' slopes differ."""
    return bool(((s == s.round()) & (s > 0) & (s < n - 1)).any())


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
    out: Tensor = _Grid.apply(x.to(s.dtype), s)
    return out.to(x.dtype)


def _sizes(x: Tensor) -> Tensor:
    """(W, H) minus one, at least one: what turns pixels into grid_sample's [-1, 1]."""
    h, w = x.shape[2:]
    return torch.tensor([max(w - 1, 1), max(h - 1, 1)], device=x.device, dtype=x.dtype)


def plain_grid_sample(x: Tensor, s: Tensor) -> Tensor:
    """`F.grid_sample` at positions in pixels, border held; one-sided derivatives, no second ones."""
    grid = s * (2.0 / _sizes(x)) - 1.0
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


class _Grid(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, s: Tensor) -> Tensor:
        return plain_grid_sample(x, s)

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


def _nudges(s: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Which positions are on a pixel (B, m_h, m_w, 2), and a step that leads off it but not far."""
    last = _sizes(x)
    step = 32.0 * torch.finfo(s.dtype).eps * last
    return ((s - s.round()).abs() <= step / 2) & (s > step) & (s < last - step), step


def _native_backward(g: Tensor, x: Tensor, s: Tensor, need_s: bool) -> tuple[Tensor, Tensor]:
    """torch's own backward, a second time from the other side where positions are on pixels."""
    per_pixel = 2.0 / _sizes(x)
    mask, step = _nudges(s, x)
    twice = need_s and bool(mask.any())
    nudge = torch.where(mask, step, torch.zeros_like(s)) if twice else None

    def native(at: Tensor, want_x: bool) -> tuple[Tensor, Tensor]:
        grid = at * per_pixel - 1.0
        # 0, 1: bilinear, border
        return torch.ops.aten.grid_sampler_2d_backward(g, x, grid, 0, 1, True, [want_x, need_s])

    grad_x, grad_grid = native(s if nudge is None else s + nudge, True)
    if nudge is not None:
        grad_grid = 0.5 * (grad_grid + native(s - nudge, False)[1])
    return grad_x, grad_grid * per_pixel if need_s else grad_grid


def _plain_backward(g: Tensor, x: Tensor, s: Tensor, need_s: bool) -> tuple[Tensor, Tensor]:
    """The same by gathering, in operations that autograd can differentiate again."""
    mask, step = _nudges(s.detach(), x)
    nudge = torch.where(mask, step, torch.zeros_like(step)).detach()
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
