"""Log-slopes: the numbers that describe a monotone map on N equal segments (Eq. 12), and their bounds."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lse_core.constants import constant
from lse_core.errors import WarpError

__all__ = [
    "bound_log_slopes",
    "constant_knots",
    "knots_and_values",
    "logits_to_log_slopes",
    "pixel_centres",
    "ramp",
    "uniform_basis",
    "uniform_knots",
    "with_ends",
]


def ramp(t: Tensor) -> Tensor:
    """clamp(t, 0, 1) elementwise, with the derivative 1/2 (not 0 or 1) at both kinks.

    `torch.clamp` passes gradient at both ends, so two segments that meet at a knot would add their
    slopes there; halves make autograd return the mean of the two slopes.
    """
    if not torch.is_grad_enabled() or (torch.compiler.is_exporting() and not t.requires_grad):
        return t.clamp(0.0, 1.0)  # the same values in one operation
    return torch.minimum(torch.maximum(t, t.new_zeros(())), t.new_ones(()))  # ties share the gradient


def uniform_knots(segments: int, *, device: torch.device | None = None, dtype: torch.dtype) -> Tensor:
    """Knots 0, 1/N, ..., 1 of Eq. 12, shape (segments + 1,)."""
    if torch.compiler.is_exporting() and isinstance(segments, torch.SymInt):  # linspace would fix the size
        return torch.arange(segments + 1, device=device).to(dtype) / segments
    return torch.linspace(0.0, 1.0, segments + 1, device=device, dtype=dtype)


constant_knots = constant(uniform_knots)
"""`uniform_knots`, remembered; never to be written to."""


def pixel_centres(n: int, like: Any) -> Tensor:
    """Centres of `n` pixels on [0, 1], ends included (align_corners=True); 1/2 for a single pixel.

    `like` is a tensor, a map or a warp whose device and dtype they have.
    """
    if n == 1:
        return torch.full((1,), 0.5, device=like.device, dtype=like.dtype)
    return constant_knots(n - 1, device=like.device, dtype=like.dtype)


def with_ends(values: Tensor) -> Tensor:
    """Values (..., K), the first of them exactly 0 and the last exactly 1."""
    edge = torch.zeros_like(values[..., :1])
    return torch.cat([edge, values[..., 1:-1], edge + 1.0], dim=-1)


def uniform_basis(u: Tensor, segments: int) -> Tensor:
    """Share of each of N equal segments that lies below each point, (n,) to (n, N).

    A map on N equal segments with rises p (N positive numbers that sum to 1) has the values
    `(uniform_basis(u, N) * p).sum(-1)`: at fixed points it is one constant matrix.
    """
    i = torch.arange(segments, device=u.device, dtype=u.dtype)
    return ramp(u.unsqueeze(-1) * segments - i)


def bound_log_slopes(w: Tensor, ratio: float) -> Tensor:
    """Centre log-slopes and clamp them to half of ln(ratio) either side, (..., N) to (..., N).

    The map built from the result has slopes within [1/ratio, ratio]. Maps already inside the bound
    pass unchanged but for the constant that the map does not depend on, so an update that ends
    with this projection keeps its fixed points.
    """
    half = 0.5 * math.log(ratio)
    return (w - w.mean(dim=-1, keepdim=True)).clamp(-half, half)


def logits_to_log_slopes(z: Tensor, ratio: float) -> Tensor:
    """Log-slopes ln(ratio)/2 tanh(z), whose softmax gives slopes within [1/ratio, ratio]; any shape."""
    if not ratio > 1.0:
        raise WarpError(f"ratio must be above 1, the slope of the identity; got {ratio}")
    return 0.5 * math.log(ratio) * torch.tanh(z)


def knots_and_values(w: Tensor) -> tuple[Tensor, Tensor]:
    """Knots and values (..., N + 1) of the maps of log-slopes (..., N), see `MonotoneMap.from_log_slopes`."""
    p = w.softmax(dim=-1)
    edge = torch.zeros_like(p[..., :1])
    # the last value is written, not summed: it must be exactly 1
    values = torch.cat([edge, p.cumsum(dim=-1)[..., :-1], edge + 1.0], dim=-1)
    knots = constant_knots(w.shape[-1], device=w.device, dtype=w.dtype)
    return knots.expand_as(values), values
