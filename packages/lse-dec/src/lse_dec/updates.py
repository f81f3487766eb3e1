"""Update rules: what the network's proposal does to the warp, H of Eq. 14 to 16.

The state w holds log-slopes of N equal segments along the last axis, (B, 2, N) for separable warps (axis x
first), (B, 2, N + 1, N) for coupled grids. Any real tensor is a valid warp, so solvers may mix states freely.
A rule maps the state and the network's raw proposal, made on the canonicalized features, to the next state.

Canonicalization is equivariant (Eq. 5, h(S(F; g)) = g h(F)) where a fixed point means "no further change is
asked for". Then g Phi* is a fixed point for S(F; g) whenever Phi* is one for F, because both give the same
canonical features. This holds for residual and compose, and not for absolute.

Two parts of residual and compose trade some of that exactness for convergence:

- The pull moves every state a little towards the state of rest, which is the identity. Without it, nothing
  determines the warp where the picture is blank. Such segments drift until they meet the bound on the slopes,
  and the solve does not converge. With it, a solve ends where the proposal balances the pull, which is near
  an equivariant fixed point but not at one. `pull=0` turns it off.
- The bound on the slopes bends smoothly near its ends, because a clamp would stop the gradient there. A fixed
  point within `FREE` of the bound is not changed by it.

docs/results/equivariance.md measures both effects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lse_core.constants import constant
from lse_core.errors import LSEError
from lse_core.monotone import uniform_basis, uniform_knots

__all__ = ["FREE", "Absolute", "Compose", "Residual", "UpdateRule", "smooth_bound"]

FREE = 0.75
"""Share of the bound within which `smooth_bound` changes nothing."""


def smooth_bound(w: Tensor, ratio: float) -> Tensor:
    """Centre log-slopes (..., N) and keep them within ln(ratio)/2 either side, bending near the bound.

    The map of the result has slopes within [1/ratio, ratio]. Centred log-slopes within `FREE` of the bound
    pass unchanged, so a fixed point there is one of the update itself; beyond, tanh leads to the bound.
    Unlike `lse_core.monotone.bound_log_slopes` it passes gradient everywhere. Lipschitz constant 1.
    """
    half = 0.5 * math.log(ratio)
    w = w - w.mean(-1, keepdim=True)
    free = w.clamp(-FREE * half, FREE * half)
    room = (1.0 - FREE) * half
    return torch.add(free, torch.tanh((w - free) / room), alpha=room)


class UpdateRule(Protocol):
    """Next state from the state and a proposal, of the same shape; the last axis holds N log-slopes.

    A rule that composes warps has an attribute `composes` that is True. It fits the warp families whose
    products are of the family again (`lse_dec.canonicalizers.WarpFamily.products`), and no others.
    """

    def __call__(self, w: Tensor, proposal: Tensor, ratio: float, rest: Tensor | None = None) -> Tensor:
        """Next log-slopes, within ln(ratio)/2 either side.

        `rest`, centred log-slopes before `smooth_bound`, is what a zero proposal settles at; None is the
        identity. It is passed only where a canonicalizer has a start of its own.
        """
        ...


@dataclass(frozen=True)
class _Stepping:
    """Settings of the rules that take steps.

    Args:
        max_step: bound on the change of a log-slope in one step, above 0; it keeps solvers from running away.
        pull: share of the way back to the state of rest in every step, at least 0 and below 1.

    Raises:
        LSEError: a setting out of its range.
    """

    max_step: float = 0.5
    pull: float = 0.1

    def __post_init__(self) -> None:
        if not self.max_step > 0:
            raise LSEError(f"update rule: max_step must be above 0; got {self.max_step!r}")
        if not 0.0 <= self.pull < 1.0:
            raise LSEError(f"update rule: pull must be at least 0 and below 1; got {self.pull!r}")

    def change(self, proposal: Tensor) -> Tensor:
        """The proposal, centred along the segments, bounded to max_step either side of zero.

        A constant over all segments changes no map, but would drive tanh into saturation, where
        learning stops.
        """
        return self.max_step * torch.tanh(proposal - proposal.mean(-1, keepdim=True))

    def pulled(self, x: Tensor, w: Tensor, rest: Tensor | None, ratio: float) -> tuple[Tensor, Tensor | None]:
        """`x` less the pull at the state w, and an offset to add before the smooth bound.

        The offset keeps the bound from moving the state of rest; None where there is nothing to add.
        """
        if rest is None:
            return torch.sub(x, w, alpha=self.pull), None
        at = smooth_bound(rest, ratio)
        return torch.sub(x, w - at, alpha=self.pull), rest - at


@dataclass(frozen=True)
class Residual(_Stepping):
    """Phi <- Phi - step(S^-1(F; Phi)), Eq. 16, in log-slopes."""

    def __call__(self, w: Tensor, proposal: Tensor, ratio: float, rest: Tensor | None = None) -> Tensor:
        """Subtract the bounded step and the pull."""
        moved, offset = self.pulled(w - self.change(proposal), w, rest, ratio)
        return smooth_bound(moved if offset is None else moved + offset, ratio)


@dataclass(frozen=True)
class Compose(_Stepping):
    """Phi <- Phi o delta(S^-1(F; Phi)): the step is itself a warp, composed in the canonical frame.

    The product is read off at the N knots again (`MonotoneMap.resample`), where it is exact.
    """

    composes: ClassVar[bool] = True

    def __call__(self, w: Tensor, proposal: Tensor, ratio: float, rest: Tensor | None = None) -> Tensor:
        """Compose with the map whose log-slopes are the bounded proposal less the pull."""
        n = w.shape[-1]
        step, offset = self.pulled(self.change(proposal), w, rest, ratio)
        at_knots = knot_basis(n, device=w.device, dtype=w.dtype)
        inner = (at_knots * step.softmax(-1).unsqueeze(-2)).sum(-1)  # delta at inner knots
        values = (uniform_basis(inner, n) * w.softmax(-1).unsqueeze(-2)).sum(-1)  # Phi(delta(knots))
        edge = torch.zeros_like(values[..., :1])
        full = torch.cat([edge, values, edge + 1.0], dim=-1)
        # slopes are positive by construction; the floor only guards the logarithm against rounding
        slopes = (n * (full[..., 1:] - full[..., :-1])).clamp_min(1e-6).log()
        return smooth_bound(slopes if offset is None else slopes + offset, ratio)


@constant
def knot_basis(segments: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`uniform_basis` at the knots between N equal segments, (N - 1, N); never to be written to."""
    return uniform_basis(uniform_knots(segments, device=device, dtype=dtype)[1:-1], segments)


@dataclass(frozen=True)
class Absolute:
    """Phi <- proposal(S^-1(F; Phi)), as in the authors' code; its fixed point is not equivariant."""

    def __call__(self, w: Tensor, proposal: Tensor, ratio: float, rest: Tensor | None = None) -> Tensor:
        """The bounded proposal, whatever the state and the rest were."""
        return smooth_bound(0.5 * math.log(ratio) * proposal, ratio)
