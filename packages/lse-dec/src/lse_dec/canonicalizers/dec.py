"""The Deep Equilibrium Canonicalizer (section 4.2): the warp is the fixed point of a learned update."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, unknown_name
from lse_core.monotone import uniform_basis
from lse_core.resample import axis_weights, pixel_centres, warp_by_weights
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization, channels_first
from lse_dec.canonicalizers.bounded import NonexpansiveNetwork, proposal_gain
from lse_dec.canonicalizers.network import UpdateNetwork
from lse_dec.canonicalizers.reduction import Reduction
from lse_dec.canonicalizers.variation import Variation
from lse_dec.gradients import Gradient, as_gradient
from lse_dec.solvers import Anderson, Solver
from lse_dec.updates import Residual, UpdateRule, smooth_bound

__all__ = ["DEC"]


class DEC(nn.Module):
    """Finds the separable warp that brings a feature map to canonical form, as a fixed point.

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
        widths: channels of the update network's convolutions.
        tol: residual (root mean square of log-slopes) at which a solve counts as converged.
        rtol: the same relative to the size of the solution; either suffices.
        stop_early: freeze each map when it has converged and stop when all have, at the cost of asking
            the device once a step (never when exporting: that needs a fixed number of steps).
        start: Phi^(0): "identity", or "variation", the analytic canonicalizer's answer, which is
            equivariant already (within `ratio`); the update's pull is then towards it.

        contraction: Lipschitz constant below 1 that the update keeps by construction (see
            `lse_dec.canonicalizers.bounded` for what that costs), or None; residual and absolute only.

    Raises:
        LSEError: a setting out of its range.
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
        projection: int = 32,
        widths: tuple[int, ...] = (64, 128),
        tol: float = 1e-3,
        rtol: float = 0.0,
        stop_early: bool = False,
        start: str = "identity",
        contraction: float | None = None,
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
        self.gain = None if contraction is None else _allowed(self.rule, contraction, ratio)
        network = UpdateNetwork if contraction is None else NonexpansiveNetwork
        self.update = network(projection, segments, widths)
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
            start: initial log-slopes (B, 2, N), Phi^(0); None starts as the module says.

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
        w = solution.z.view(-1, 2, self.segments)
        return Canonicalization(SeparableWarp.from_log_slopes(w), solution)

    def problem(
        self, features: Tensor, *, channels_last: bool = False
    ) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """The update H of Eq. 14 for a batch of maps, (B, 2N) to (B, 2N), and Phi^(0), (B, 2N).

        What `forward` solves; `lse_dec.contraction` measures how much it contracts.
        """
        planes = channels_first(features, self.channels, channels_last, "dec")
        x = self.reduce(features, channels_last)
        b, n = x.shape[0], self.segments
        # coordinates need at least float32, whatever the features' precision
        precise = torch.promote_types(features.dtype, torch.float32)
        w0 = torch.zeros(b, 2 * n, device=x.device, dtype=precise)
        rest: dict[str, Tensor] = {}
        if self.start is not None:
            first = self.start(planes).warp
            slopes = torch.stack([first.x.log_slopes, first.y.log_slopes], dim=1).to(w0)
            rest = {"rest": slopes - slopes.mean(-1, keepdim=True)}
            w0 = smooth_bound(slopes, self.ratio).reshape(b, 2 * n)
        # constants of the solve, made once and not once a step
        averages = self.update.averages(x)
        gain = None if self.gain is None else (self.gain / proposal_gain(x, averages, self.ratio)).to(w0)
        basis_x, basis_y = (uniform_basis(pixel_centres(m, w0), n) for m in (x.shape[3], x.shape[2]))

        def update(state: Tensor) -> Tensor:
            w = state.view(b, 2, n)
            rises = w.softmax(-1)
            # sums, not matmul: autocast must not lower the precision of coordinates
            u_x = (rises[:, :1] * basis_x).sum(-1)
            u_y = (rises[:, 1:] * basis_y).sum(-1)
            canonical = warp_by_weights(
                x, axis_weights(u_x, x.shape[3]), axis_weights(u_y, x.shape[2]), channels_last=False
            )
            proposal = self.update(canonical, averages).to(w)
            proposal = proposal if gain is None else gain * proposal
            return self.rule(w, proposal, self.ratio, **rest).reshape(b, 2 * n)

        return update, w0


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
