"""Warping images, maps, tokens and label maps: S and S^-1 of Eq. 8 and 13.

Conventions, the same for every path: the unit square runs from the centre of the first pixel to the
centre of the last (align_corners=True), in xy order; warps keep the border, so no padding is ever
read. `unscale` pulls: the output at p is the input at l(p). `scale` pulls through the inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lse_core.columns import sample_columns
from lse_core.errors import DTypeError, ShapeError, unknown_name
from lse_core.layouts import Layout, as_layout
from lse_core.log_slopes import pixel_centres
from lse_core.monotone import MonotoneMap
from lse_core.pointwise import PointwiseWarp
from lse_core.sampling import (
    hat,
    on_pixels,
    pixel_numbers,
    pixel_weights,
    sample_at,
    sample_separable,
)
from lse_core.separable import SeparableWarp
from lse_core.triangular import Triangular

__all__ = ["averaging_weights", "axis_weights", "pixel_centres", "scale", "unscale", "warp_by_weights"]

MODES = ("auto", "bilinear", "nearest")
# Matrix products cost O(n^3) an image, sampling O(n^2): from these sizes on sampling is cheaper. Summing
# neighbours pays where a pixel has many channels side by side. Measured by tools/bench/warps.py.
MANY_PIXELS = 32 * 32
MANY_PIXELS_CUDA = 64 * 64
FEW_CHANNELS = 16


def scale(
    x: Tensor,
    warp: SeparableWarp | PointwiseWarp,
    layout: Layout | str = "nchw",
    *,
    mode: str = "auto",
    size: tuple[int, int] | None = None,
    antialias: bool = False,
) -> Tensor:
    """S(x; l)(p) = x(l^-1(p)), Eq. 8 and 13: where the slope of `warp` exceeds 1 the picture grows.

    Args:
        x: (B, C, H, W), (B, H, W, C) or tokens, as `layout` says; or label maps (B, H, W) of an
            integer dtype. Floating values of any range; float16 and bfloat16 keep their dtype while
            coordinates stay in the warp's.
        warp: batch B (or one warp for all), of any family. A `GridWarp` goes through `~warp`, the paper's
            inverse; for the true one use `unscale(x, warp.inverse())`.
        layout: "nchw", "nhwc", or a `Layout` such as `Tokens(grid, prefix)`.
        mode: "bilinear", "nearest", or "auto": nearest for integer dtypes, else bilinear. Both
            sample at the very same coordinates.
        size: (height, width) of the output; None keeps the input's.
        antialias: where the result shrinks the input, average over all the pixels that fall together
            instead of reading two of them. Bilinear mode and separable warps only.

    Returns:
        The warped tensor, layout and dtype of `x`.

    Raises:
        ShapeError: rank, batch or size do not fit.
        DTypeError: no tensor, no warp, a warp on another device, a label map is to be interpolated or
            averaged, or a warp that is not separable is to be anti-aliased.
    """
    _check_types(x, warp)
    return unscale(x, ~warp, layout, mode=mode, size=size, antialias=antialias)


def unscale(
    x: Tensor,
    warp: SeparableWarp | PointwiseWarp,
    layout: Layout | str = "nchw",
    *,
    mode: str = "auto",
    size: tuple[int, int] | None = None,
    antialias: bool = False,
) -> Tensor:
    """S^-1(x; l)(p) = x(l(p)): undoes `scale` with the same warp, up to interpolation.

    Arguments, result and errors as in `scale`.
    """
    _check_types(x, warp)
    labels = not x.is_floating_point()
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    nearest = mode == "nearest" or (labels and mode == "auto")
    if labels and (not nearest or antialias):
        raise DTypeError(f"labels of dtype {x.dtype} cannot be interpolated; use mode='nearest'")
    if nearest and antialias:
        raise DTypeError(
            "antialias=True averages pixels, which mode='nearest' must not do; leave one of them out"
        )
    bare = x.ndim == 3 and labels  # a label map without channels
    lay = as_layout("nchw" if bare else layout)
    spatial, rest = lay.unpack(x.unsqueeze(1) if bare else x)
    h, w, _ = _sizes(spatial, lay.channels_last)
    out_h, out_w = size or (h, w)
    warp = _fit(warp, spatial, out_h, out_w)
    if isinstance(warp, PointwiseWarp):
        if antialias:
            raise DTypeError("antialias=True needs a SeparableWarp: pass the nearest one, warp.separable()")
        if isinstance(warp, Triangular) and not nearest and _columns_pay(spatial, lay.channels_last):
            out = _columns(spatial, warp, (out_h, out_w), lay.channels_last)
        else:
            out = _coupled(spatial, warp.lattice(out_h, out_w), lay.channels_last, nearest)
        return out[:, 0] if bare else lay.pack(out, rest)
    s_x, s_y = _positions(warp, (out_h, out_w), (h, w))
    if nearest:
        out = _pick(spatial, s_x.unsqueeze(1), s_y.unsqueeze(2), lay.channels_last)
    elif antialias:
        p_x, p_y = pixel_centres(out_w, warp), pixel_centres(out_h, warp)
        w_x = _wide_weights(s_x, w, warp.x.slope(p_x) * (w - 1) / max(out_w - 1, 1))
        w_y = _wide_weights(s_y, h, warp.y.slope(p_y) * (h - 1) / max(out_h - 1, 1))
        out = warp_by_weights(spatial, w_x, w_y, channels_last=lay.channels_last)
    else:
        out = _bilinear(spatial, s_x, s_y, lay.channels_last)
    return out[:, 0] if bare else lay.pack(out, rest)


def _positions(warp: SeparableWarp, out: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where the pixels of an `out` picture lie in one of `size`, both (height, width): columns and rows."""
    (out_h, out_w), (h, w) = out, size
    x, y = warp.x, warp.y
    # comparing open sizes would close a graph to others
    known = isinstance(out_h, int) and isinstance(out_w, int)
    if known and out_h == out_w and x.segments == y.segments:  # both axes in one pass
        both = MonotoneMap(torch.cat([x.knots, y.knots]), torch.cat([x.values, y.values]), check=False)
        u = both(pixel_centres(out_w, warp))
        u_x, u_y = u[: x.batch], u[x.batch :]
    else:
        u_x, u_y = x(pixel_centres(out_w, warp)), y(pixel_centres(out_h, warp))
    return u_x * (w - 1), u_y * (h - 1)


def _coupled(x: Tensor, at: Tensor, channels_last: bool, nearest: bool) -> Tensor:
    """Sample at coordinates (B, m_h, m_w, 2) within [0, 1]."""
    h, w, _ = _sizes(x, channels_last)
    graded = torch.is_grad_enabled() and (x.requires_grad or at.requires_grad)
    if not (nearest or graded or torch.compiler.is_compiling()):

        def sample(t: Tensor) -> Tensor:  # the shortest way, without an eye on gradients
            grid = 2.0 * at - 1.0
            return F.grid_sample(t.to(at.dtype), grid, padding_mode="border", align_corners=True).to(t.dtype)

        return _channels_first(sample, x, channels_last)
    s_x, s_y = on_pixels(at[..., 0] * (w - 1), w), on_pixels(at[..., 1] * (h - 1), h)
    if nearest:
        return _pick(x, s_x, s_y, channels_last)
    return _channels_first(partial(sample_at, s_x=s_x, s_y=s_y), x, channels_last)


def _sizes(x: Tensor, channels_last: bool) -> tuple[int, int, int]:
    """Height, width and channels of a map."""
    h, w, c = x.shape[1:] if channels_last else (*x.shape[2:], x.shape[1])
    return h, w, c


def _channels_first(sample: Callable[[Tensor], Tensor], x: Tensor, channels_last: bool) -> Tensor:
    """What `sample`, a function of (B, C, H, W), makes of a map, with the channels where they were."""
    if not channels_last:
        return sample(x)
    return sample(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


def _columns_pay(x: Tensor, channels_last: bool) -> bool:
    """Whether to sample column by column, in operations of every runtime, and not by grid_sample."""
    if torch.compiler.is_exporting():
        return True
    h, w, c = _sizes(x, channels_last)
    if x.device.type != "cpu":  # deterministic there, which grid_sample's backward is not
        return c >= FEW_CHANNELS and h * w <= MANY_PIXELS_CUDA
    return channels_last and c >= FEW_CHANNELS and h * w <= MANY_PIXELS


def _columns(x: Tensor, warp: Triangular, size: tuple[int, int], channels_last: bool) -> Tensor:
    """Bilinear sampling at a triangular warp's positions: two passes of products, or of products and taps."""
    h, w, c = _sizes(x, channels_last)
    s, t = warp.positions(*size)
    xy = warp.order == "xy"
    first, second = (w, h) if xy else (h, w)
    s, t = s * (first - 1), t * (second - 1)
    if s.requires_grad or t.requires_grad:
        s, t = on_pixels(s, first), on_pixels(t, second)
    # axes in the order first, second, channels; all permutations but one are their own inverses
    there = (0, 2, 1, 3) if channels_last else (0, 3, 2, 1)
    if not xy:
        there = (0, 1, 2, 3) if channels_last else (0, 2, 3, 1)
    back = (0, 3, 1, 2) if there == (0, 2, 3, 1) else there
    taps = torch.compiler.is_exporting() and c < FEW_CHANNELS
    return sample_columns(x.permute(there), s, t, taps=taps).permute(back).contiguous()


def _bilinear(x: Tensor, s_x: Tensor, s_y: Tensor, channels_last: bool) -> Tensor:
    """Bilinear sampling by the cheapest way here: matrix products, taps, or grid_sample.

    The ways add up in different orders: their float32 results differ by some 1e-6 of the values.
    """
    h, w, c = _sizes(x, channels_last)
    exporting, compiling = torch.compiler.is_exporting(), torch.compiler.is_compiling()
    gpu = x.device.type != "cpu"
    many = h * w > (MANY_PIXELS_CUDA if gpu else MANY_PIXELS)
    if not exporting and (s_x.requires_grad or s_y.requires_grad):
        s_x, s_y = on_pixels(s_x, w), on_pixels(s_y, h)
    # exported graphs hold only ops that every runtime shares, which GridSample is not; the compiler derives
    # gradients itself, of plain operations; on a GPU grid_sample's backward is not deterministic
    if exporting or (not many and (compiling or (gpu and not channels_last))):
        return warp_by_weights(x, pixel_weights(s_x, w), pixel_weights(s_y, h), channels_last=channels_last)
    if compiling or not channels_last or (many and c < FEW_CHANNELS):
        sample = partial(sample_at, s_x=s_x.unsqueeze(1), s_y=s_y.unsqueeze(2))
        return _channels_first(sample, x, channels_last)
    taps = not gpu and c >= FEW_CHANNELS and min(h, w) > 1 and x.dtype in (torch.float32, torch.float64)
    return sample_separable(x, s_x, s_y, "taps" if taps else "products")


def axis_weights(u: Tensor, n: int) -> Tensor:
    """Bilinear weights along one axis: W[b, i, j] = max(0, 1 - |u_i (n-1) - j|).

    Written with the mean of one-sided derivatives at the kinks, so the gradient at exact pixel
    positions (the identity!) is the central difference; a plain relu gives zero there.

    Args:
        u: (B, m) coordinates in [0, 1].
        n: pixels of the input along the axis.

    Returns:
        (B, m, n); rows sum to 1.
    """
    return pixel_weights(u * (n - 1), n)


def _wide_weights(s: Tensor, n: int, step: Tensor) -> Tensor:
    """Tents as wide as the distance between positions in pixels, where that exceeds one; rows sum to 1."""
    j = pixel_numbers(n, device=s.device, dtype=s.dtype)
    tent = hat((s.unsqueeze(-1) - j) / step.abs().clamp_min(1.0).unsqueeze(-1))
    return tent / tent.sum(-1, keepdim=True)


def averaging_weights(n: int, m: int, *, device: torch.device | None = None, dtype: torch.dtype) -> Tensor:
    """Constant matrix that reduces `n` pixels to `m` <= n without aliasing, (m, n), rows sum to 1.

    A tent as wide as the distance between output pixels, on the same corners as every warp here, so
    a warp of the full map and of the reduced one mean the same (strided pooling would shift them).
    """
    if not 1 <= m <= n:
        raise ShapeError(f"cannot reduce {n} pixels to {m}")
    out, pixels = (
        pixel_centres(k, torch.empty(0, device=device, dtype=dtype)).unsqueeze(axis)
        for k, axis in ((m, 1), (n, 0))
    )
    if m == 1:
        return torch.full((1, n), 1.0 / n, device=device, dtype=dtype)
    tent = (1.0 - ((out - pixels) * (m - 1)).abs()).clamp_min(0.0)
    return tent / tent.sum(-1, keepdim=True)


def warp_by_weights(x: Tensor, w_x: Tensor, w_y: Tensor, *, channels_last: bool) -> Tensor:
    """W_y X W_x^T: two small matrix products in the dtype of `x`.

    Args:
        x: (B, C, H, W), or (B, H, W, C) if `channels_last`.
        w_x: (B, m_w, W) from `axis_weights`.
        w_y: (B, m_h, H).
        channels_last: where the channels are.

    Returns:
        (B, C, m_h, m_w) or (B, m_h, m_w, C).
    """
    if x.dtype not in (w_x.dtype, w_y.dtype) or w_x.dtype != w_y.dtype:  # casts to itself cost in tracing
        w_x, w_y = w_x.to(x.dtype), w_y.to(x.dtype)
    if channels_last:
        b, h, w, c = x.shape
        rows = w_y @ x.reshape(b, h, w * c)
        return w_x.unsqueeze(1) @ rows.view(b, w_y.shape[1], w, c)
    b, c, h, w = x.shape
    rows = x.reshape(b, c * h, w) @ w_x.transpose(1, 2)  # one product an image, not one a channel
    return w_y.unsqueeze(1) @ rows.view(b, c, h, w_x.shape[1])


def _pick(x: Tensor, s_x: Tensor, s_y: Tensor, channels_last: bool) -> Tensor:
    """The nearest pixels to positions that broadcast to (B, m_h, m_w)."""
    h, w, _ = _sizes(x, channels_last)
    i_y, i_x = s_y.round().long().clamp(0, h - 1), s_x.round().long().clamp(0, w - 1)
    i_b = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1)
    if channels_last:
        return x[i_b, i_y, i_x]
    return x.permute(0, 2, 3, 1)[i_b, i_y, i_x].permute(0, 3, 1, 2)


def _check_types(x: Tensor, warp: SeparableWarp | PointwiseWarp) -> None:
    if not isinstance(x, Tensor):
        raise DTypeError(
            f"expected a torch tensor to warp; got {type(x).__name__}: torch.as_tensor makes one of an array"
        )
    if not isinstance(warp, (SeparableWarp, PointwiseWarp)):
        raise DTypeError(f"expected a SeparableWarp or a GridWarp as the warp; got {type(warp).__name__}")


def _fit(
    warp: SeparableWarp | PointwiseWarp, spatial: Tensor, out_h: int, out_w: int
) -> SeparableWarp | PointwiseWarp:
    if warp.device != spatial.device:
        raise DTypeError(f"the warp is on {warp.device}, the input on {spatial.device}; move one with .to()")
    if out_h < 1 or out_w < 1:
        raise ShapeError(f"output size must be at least 1 x 1; got {out_h} x {out_w}")
    if warp.batch not in (1, spatial.shape[0]):
        raise ShapeError(f"{warp.batch} warps do not fit a batch of {spatial.shape[0]} inputs")
    if not math.prod(spatial.shape[1:]):
        raise ShapeError(f"an empty map cannot be warped; got a map of shape {tuple(spatial.shape)}")
    return warp.broadcast(spatial.shape[0])
