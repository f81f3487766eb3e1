"""The Deep Equilibrium Canonicalizer (section 4.2): the warp is the fixed point of a learned update."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lse_core.constants import constant
from lse_core.errors import LSEError, unknown_name
from lse_core.monotone import uniform_basis
from lse_core.resample import pixel_centres, unscale
from lse_core.sampling import hat, pixel_numbers
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization, channels_first
from lse_dec.canonicalizers.bounded import NonexpansiveNetwork, proposal_gain
from lse_dec.canonicalizers.coupled import GridNetwork, grid_warp
from lse_dec.canonicalizers.network import UpdateNetwork
from lse_dec.canonicalizers.reduction import Reduction
from lse_dec.canonicalizers.variation import Variation
from lse_dec.gradients import Gradient, as_gradient, lowered
from lse_dec.solvers import Anderson, Solver
from lse_dec.updates import Residual, UpdateRule, smooth_bound

__all__ = ["DEC"]


class DEC(nn.Module):
    """Finds the warp that brings a feature map to canonical form, as a fixed point.

    The map is reduced once (anti-aliased, same corners) and projected to a few channels once, since
    both commute with a warp; each solver step then only warps that small map, runs the update
    network on it and applies the update rule. State and solver stay in float32 (float64 for float64
    features) under autocast and in half precision.

    Args:
        channels: channels of the features.
        segments: N of Eq. 12, segments of the warp an axis.
        rule: update rule, see `lse_dec.updates`.
        solver: step rule, see `lse_dec.solvers`.
        steps: evaluations of the update, at least 1.
        ratio: bound on the warp's slopes, within [1/ratio, ratio]; above 1, at most 4.
        gradient: how gradients pass the fixed point: "phantom", "implicit", "unrolled" or an object.
        resolution: the reduced map has at most this many pixels a side.
        projection: channels after projection.
        widths: channels of the update network's convolutions; the paper's 64 and 128 (section A1) cost
            four times as much, a fifth of vit_tiny's own work at two sites.
        tol: residual (root mean square of log-slopes) at which a solve counts as converged.
        rtol: the same relative to the size of the solution; either suffices.
        stop_early: freeze each map when it has converged and stop when all have, at the cost of asking
            the device once a step (never when exporting: that needs a fixed number of steps).
        start: Phi^(0): "identity", or "variation", the analytic canonicalizer's answer, which is
            equivariant already (within `ratio`); the update's pull is then towards it.
        contraction: Lipschitz constant below 1 that the update keeps by construction (see
            `lse_dec.canonicalizers.bounded` for what that costs), or None; residual and absolute only.

        warp: "separable", the exact group, or "grid", the paper's coupled grid of (segments + 1)^2 nodes (A26
            to A29), for the rules residual and absolute; the state is then (B, 2, N + 1, N) log-slopes.
        inverse: for "grid", what puts a dense output back: "axes", each axis on its own as in the paper, or
            "refined", the true inverse, an error where the grid folds.

    Raises:
        LSEError: a setting out of its range, or settings that do not go together.
    """

    def __init__(
        self,
        channels: int,
        *,
        segments: int = 8,
        rule: UpdateRule | None = None,
        solver: Solver | None = None,
        steps: int = 5,
        ratio: float = 2.0,
        gradient: Gradient | str = "phantom",
        resolution: int = 16,
        projection: int = 16,
        widths: tuple[int, ...] = (32, 64),
        tol: float = 1e-3,
        rtol: float = 0.0,
        stop_early: bool = False,
        start: str = "identity",
        contraction: float | None = None,
        warp: str = "separable",
        inverse: str = "axes",
    ) -> None:
        super().__init__()
        if not 1.0 < ratio <= 4.0:
            raise LSEError(f"dec: ratio must be above 1 and at most 4; got {ratio!r}")
        if segments < 2 or steps < 1 or resolution < 4:
            raise LSEError(
                f"dec: segments must be at least 2, steps 1, resolution 4; "
                f"got {segments}, {steps}, {resolution}"
            )
        self.channels, self.segments, self.steps = channels, segments, steps
        self.ratio, self.tol, self.rtol, self.stop_early = ratio, tol, rtol, stop_early
        self.rule: UpdateRule = rule if rule is not None else Residual()
        self.solver: Solver = solver if solver is not None else Anderson()
        self.gradient = as_gradient(gradient)
        self.reduce = Reduction(channels, projection, resolution)
        self.warp, self.inverse = warp, inverse
        _check_family(self.rule, warp, inverse, contraction)
        self.gain = None if contraction is None else _allowed(self.rule, contraction, ratio)
        network = UpdateNetwork if contraction is None else NonexpansiveNetwork
        self.update = (GridNetwork if warp == "grid" else network)(projection, segments, widths)
        if start not in ("identity", "variation"):
            raise unknown_name("start", start, ["identity", "variation"])
        self.start = Variation(channels, segments=segments) if start == "variation" else None

    def forward(
        self,
        features: Tensor,
        *,
        channels_last: bool = False,
        steps: int | None = None,
        start: Tensor | None = None,
    ) -> Canonicalization:
        """Solve for the warp of a batch of maps.

        Args:
            features: (B, C, H, W), or (B, H, W, C) if `channels_last`.
            channels_last: where the channels are.
            steps: evaluations of the update in this call; None takes the module's.
            start: initial log-slopes (B, 2, N), Phi^(0), or (B, 2, N + 1, N) for a grid; None starts as the
                module says.

        Returns:
            The warp, in float32 (float64 for float64 features), and its solve.

        Raises:
            ShapeError: wrong rank or channels.
        """
        update, w0 = self.problem(features, channels_last=channels_last)
        if start is not None:
            w0 = start.to(w0).reshape(w0.shape)
        solution = self.gradient.solve(
            update,
            w0,
            self.solver,
            steps=self.steps if steps is None else steps,
            tol=self.tol,
            rtol=self.rtol,
            stop_early=self.stop_early,
        )
        w = solution.z.view(-1, *self.shape)
        if self.warp == "grid":
            return Canonicalization(grid_warp(w, self.inverse == "refined"), solution)
        return Canonicalization(SeparableWarp.from_log_slopes(w), solution)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one map's state."""
        n = self.segments
        return (2, n + 1, n) if self.warp == "grid" else (2, n)

    def problem(
        self, features: Tensor, *, channels_last: bool = False
    ) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """The update H of Eq. 14 for a batch of maps, (B, D) to (B, D), and Phi^(0), (B, D).

        D is 2N, or 2N(N + 1) for grids. What `forward` solves; `lse_dec.contraction` measures how much it
        contracts.
        """
        planes = channels_first(features, self.channels, channels_last, "dec")
        x = self.reduce(features, channels_last)
        b = x.shape[0]
        # coordinates need at least float32, whatever the features' precision
        precise = torch.promote_types(features.dtype, torch.float32)
        w0 = torch.zeros(b, math.prod(self.shape), device=x.device, dtype=precise)
        rest: dict[str, Tensor] = {}
        if self.start is not None:
            first = self.start(planes).warp
            slopes = torch.stack([first.x.log_slopes, first.y.log_slopes], dim=1).to(w0)
            if self.warp == "grid":  # a separable warp is a grid whose rows, and whose columns, are alike
                slopes = slopes.unsqueeze(2).expand(b, *self.shape)
            rest = {"rest": slopes - slopes.mean(-1, keepdim=True)}
            w0 = smooth_bound(slopes, self.ratio).reshape(b, -1)
        # constants of the solve, made once and not once a step
        averages = self.update.averages(x)
        gain = None if self.gain is None else (self.gain / proposal_gain(x, self.segments, self.ratio)).to(w0)
        canonical = _on_grid(x) if self.warp == "grid" else _on_axes(x, self.segments)

        def update(state: Tensor) -> Tensor:
            w = state.view(b, *self.shape)
            proposal = self.update(canonical(w), averages).to(w)
            proposal = proposal if gain is None else gain * proposal
            return self.rule(w, proposal, self.ratio, **rest).reshape(b, -1)

        return update, w0


def _on_axes(x: Tensor, segments: int) -> Callable[[Tensor], Tensor]:
    """The map (B, C, h, w) under separable warps of log-slopes (B, 2, N)."""
    b, c, h, w = x.shape
    rows = x.transpose(1, 2).reshape(b, h, c * w)  # so that both products are of whole matrices

    def weights(rises: Tensor, n: int) -> Tensor:
        """Of both axes or one, (B, a, N) to (B, a, n, n)."""
        basis = _basis(n, segments, device=rises.device, dtype=rises.dtype)
        # sums, not matmul: autocast must not lower the precision of coordinates
        at = (rises.unsqueeze(2) * basis).sum(-1, keepdim=True)
        return hat(at - pixel_numbers(n, device=at.device, dtype=at.dtype)).to(x.dtype)

    def canonical(state: Tensor) -> Tensor:
        rises = state.softmax(-1)
        if h == w:
            both = weights(rises, w)
            w_x, w_y = both[:, 0], both[:, 1]
        else:
            w_x, w_y = weights(rises[:, :1], w)[:, 0], weights(rises[:, 1:], h)[:, 0]
        along_y = (w_y @ rows).view(b, h * c, w)
        return (along_y @ w_x.transpose(1, 2)).view(b, h, c, w).transpose(1, 2)

    return canonical


@constant
def _basis(n: int, segments: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What each segment's rise adds to the coordinate of each of n pixels, in pixels, (n, N)."""
    like = torch.empty(0, device=device, dtype=dtype)
    return uniform_basis(pixel_centres(n, like), segments) * (n - 1)


def _on_grid(x: Tensor) -> Callable[[Tensor], Tensor]:
    """The map (B, C, h, w) under coupled grids of log-slopes (B, 2, N + 1, N)."""

    def canonical(w: Tensor) -> Tensor:
        if not lowered(x.device.type):
            return unscale(x, grid_warp(w))
        # coordinates are made by matrix products, which autocast would lower
        with torch.autocast(x.device.type, enabled=False):
            return unscale(x, grid_warp(w))

    return canonical


def _check_family(rule: UpdateRule, warp: str, inverse: str, contraction: float | None) -> None:
    """Refuse settings that do not go together."""
    if warp not in ("separable", "grid"):
        raise unknown_name("warp of dec", warp, ["separable", "grid"])
    if inverse not in ("axes", "refined"):
        raise unknown_name("inverse", inverse, ["axes", "refined"])
    if warp == "separable" and inverse != "axes":
        raise LSEError("dec: separable warps have one inverse, the exact one; leave inverse out")
    if warp == "grid" and contraction is not None:
        raise LSEError("dec: contraction by construction is for warp='separable'; leave one of the two out")
    if warp == "grid" and not getattr(rule, "coupled", True):
        raise LSEError(
            f"dec: the rule {type(rule).__name__} composes warps, and products of coupled grids are no "
            "grids; use rule='residual' or 'absolute', or warp='separable'"
        )


def _allowed(rule: UpdateRule, contraction: float, ratio: float) -> float:
    """What Lipschitz constant the proposal may have."""
    if not 0.0 < contraction < 1.0:
        raise LSEError(f"dec: contraction must lie between 0 and 1; got {contraction!r}")
    allowed = getattr(rule, "allowed", None)
    if allowed is None:
        raise LSEError(
            f"dec: no bound is known for the rule {type(rule).__name__}, so it cannot be made to contract by "
            "construction; use rule='residual' or 'absolute', or leave contraction out"
        )
    return float(allowed(contraction, ratio))
