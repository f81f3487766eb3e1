"""Update rules: what the network's proposal does to the warp, H of Eq. 14 to 16.

The state is w, the centred log-slopes of a separable warp on N equal segments an axis, (B, 2, N):
any real vector is a valid warp, so solvers may mix states freely. A rule maps the state and the
network's raw proposal, seen on the canonicalized features, to the next state.

For canonicalization to be equivariant (Eq. 5, h(S(F; g)) = g h(F)) the fixed point must mean "no
further change asked for": then g Phi* is a fixed point for S(F; g) whenever Phi* is one for F,
because both give the same canonical features. That holds for residual and compose, not for absolute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lse_core.errors import LSEError
from lse_core.monotone import bound_log_slopes, uniform_basis, uniform_knots

__all__ = ["Absolute", "Compose", "Residual", "UpdateRule"]


class UpdateRule(Protocol):
    """Next state from the state and a proposal, (B, 2, N) each."""

    def __call__(self, w: Tensor, proposal: Tensor, ratio: float) -> Tensor:
        """Next log-slopes, centred and within ln(ratio)/2 either side."""
        ...


@dataclass(frozen=True)
class _Bounded:
    """Settings of the rules that take steps.

    Args:
        max_step: bound on the change of a log-slope in one step; what keeps solvers from running away.
    """

    max_step: float = 0.5

    def __post_init__(self) -> None:
        if not self.max_step > 0:
            raise LSEError(f"max_step must be above 0; got {self.max_step!r}")

    def change(self, proposal: Tensor) -> Tensor:
        """The proposal, centred along the segments, bounded to max_step either side of zero.

        A constant over all segments changes no map, but would drive tanh into saturation, where
        learning stops.
        """
        return self.max_step * torch.tanh(proposal - proposal.mean(-1, keepdim=True))


@dataclass(frozen=True)
class Residual(_Bounded):
    """Phi <- Phi - step(S^-1(F; Phi)), Eq. 16, in log-slopes."""

    def __call__(self, w: Tensor, proposal: Tensor, ratio: float) -> Tensor:
        """Subtract the bounded step."""
        return bound_log_slopes(w - self.change(proposal), ratio)


@dataclass(frozen=True)
class Compose(_Bounded):
    """Phi <- Phi o delta(S^-1(F; Phi)): the step is itself a warp, composed in the canonical frame.

    The product is read off at the N knots again (`MonotoneMap.resample`), where it is exact.
    """

    def __call__(self, w: Tensor, proposal: Tensor, ratio: float) -> Tensor:
        """Compose with the map whose log-slopes are the bounded proposal."""
        n = w.shape[-1]
        knots = uniform_knots(n, device=w.device, dtype=w.dtype)
        rises = self.change(proposal).softmax(-1)
        inner = (uniform_basis(knots[1:-1], n) * rises.unsqueeze(-2)).sum(-1)  # delta at inner knots
        mine = w.softmax(-1)
        values = (uniform_basis(inner, n) * mine.unsqueeze(-2)).sum(-1)  # Phi(delta(knots))
        edge = torch.zeros_like(values[..., :1])
        full = torch.cat([edge, values, edge + 1.0], dim=-1)
        # slopes are positive by construction; the floor only guards the logarithm against rounding
        slopes = (n * (full[..., 1:] - full[..., :-1])).clamp_min(1e-6)
        return bound_log_slopes(slopes.log(), ratio)


@dataclass(frozen=True)
class Absolute:
    """Phi <- proposal(S^-1(F; Phi)): the authors' published code; its fixed point is not equivariant."""

    def __call__(self, w: Tensor, proposal: Tensor, ratio: float) -> Tensor:
        """The bounded proposal, whatever the state was."""
        return bound_log_slopes(0.5 * math.log(ratio) * torch.tanh(proposal), ratio)
