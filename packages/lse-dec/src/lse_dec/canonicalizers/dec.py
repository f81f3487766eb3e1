"""The Deep Equilibrium Canonicalizer (section 4.2): the warp is the fixed point of a learned update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, unknown_name
from lse_core.grid import GridWarp
from lse_core.plugins import registry
from lse_core.separable import SeparableWarp
from lse_core.settings import takes
from lse_core.triangular import TriangularWarp
from lse_dec.canonicalizers.base import Canonicalization, channels_first
from lse_dec.canonicalizers.coupled import CoupledGrid, TriangularFamily
from lse_dec.canonicalizers.families import Separable, WarpFamily
from lse_dec.canonicalizers.network import Reduction
from lse_dec.canonicalizers.variation import Variation
from lse_dec.gradients import Gradient, as_gradient
from lse_dec.solvers import Anderson, Solver
from lse_dec.updates import Residual, UpdateRule, smooth_bound

__all__ = ["DEC", "family_of"]


class DEC(nn.Module):
    """Finds the warp that brings a feature map to canonical form, as a fixed point.

    The map is reduced and projected to a few channels once, because both commute with a warp (the first up to
    smoothing). Each solver step then warps that small map, runs the update network on it and applies the
    update rule. State and solver stay in float32 (float64 for float64 features), under autocast too.

    Args:
        channels: channels of the features.
        segments: N of Eq. 12, segments of the warp an axis.
        rule: update rule, see `lse_dec.updates`; None takes `Residual()`.
        solver: fixed-point solver, see `lse_dec.solvers`; None takes `Anderson()`.
        steps: evaluations of the update, at least 1.
        ratio: bound on the warp's slopes, within [1/ratio, ratio]; above 1, at most 4.
        gradient: how gradients pass the fixed point: "phantom", "implicit", "unrolled" or an object.
        resolution: the reduced map has at most this many pixels a side.
        projection: channels after projection.
        widths: channels of the update network's convolutions. The paper's 64 and 128 (section A1) cost four
            times as much; at two sites that is a fifth of vit_tiny's own work.
        tol: residual (root mean square of log-slopes) at which a solve counts as converged.
        rtol: residual, as a share of the size of the solution, at which it counts as converged too.
        stop_early: freeze each map when it has converged, and stop when all have. Waits for the device in
            every step, and must be off for an export, which needs a fixed number of steps.
        start: Phi^(0): "identity", or "variation", the answer of the analytic canonicalizer, which is
            equivariant already (within `ratio`). The update's pull is then towards that answer.
        contraction: was removed, and is refused unless None.
        warp: the family of warps that is searched: a name from the hook `lse_warps` or a `WarpFamily`.
            "separable" is an exact group, and "triangular" a richer one, with segments + 1 columns; "grid" is
            the paper's coupled grid of (segments + 1)^2 nodes (A26 to A29). The last two fit the rules
            residual and absolute.
        inverse: the inverse for dense outputs, where the family has a choice. For "grid": "axes", each axis
            on its own as in the paper, or "refined", the true inverse, an error where the grid folds.
        order: which axis of "triangular" warps moves on its own: "xy" (for objects in a row), or "yx". A
            mixture of both is in neither group, so the order is not learned.

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
        contraction: None = None,
        warp: str | WarpFamily = "separable",
        inverse: str = "axes",
        order: str = "xy",
    ) -> None:
        super().__init__()
        if contraction is not None:
            raise LSEError(
                "dec: contraction by construction was removed, because its answers were near the identity; "
                "leave contraction out: lse_dec.equivariance_loss trains updates to contract"
            )
        if not 1.0 < ratio <= 4.0:
            raise LSEError(f"dec: ratio must be above 1 and at most 4; got {ratio!r}")
        if segments < 2 or steps < 1 or resolution < 4:
            raise LSEError(
                f"dec: segments must be at least 2, steps 1, resolution 4; "
                f"got {segments}, {steps}, {resolution}"
            )
        if min(projection, *widths, 1) < 1:
            raise LSEError(
                f"dec: projection and widths must be at least 1; got {projection} and {list(widths)}"
            )
        if not (tol >= 0 and rtol >= 0):
            raise LSEError(f"dec: tol and rtol must be at least 0; got {tol!r} and {rtol!r}")
        self.channels, self.segments, self.steps = channels, segments, steps
        self.ratio, self.tol, self.rtol, self.stop_early = ratio, tol, rtol, stop_early
        self.rule: UpdateRule = rule if rule is not None else Residual()
        self.solver: Solver = solver if solver is not None else Anderson()
        self.gradient = as_gradient(gradient)
        self.reduce = Reduction(channels, projection, resolution)
        self.family = family_of(warp, inverse, order)
        self.shape = self.family.shape(segments)
        composes = getattr(self.rule, "composes", not getattr(self.rule, "coupled", True))
        if composes and not self.family.products:
            raise LSEError(
                f"dec: the rule {type(self.rule).__name__} composes warps, and a product of {warp!r} "
                "warps is not one of them; use rule='residual' or 'absolute', or warp='separable'"
            )
        self.update = self.family.network(projection, segments, widths)
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
            start: Phi^(0), log-slopes (B, *shape); None starts as the module says.

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
        return Canonicalization(self.family.warp(solution.z.view(-1, *self.shape)), solution)

    def problem(
        self, features: Tensor, *, channels_last: bool = False
    ) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """The update H of Eq. 14 for a batch of maps, (B, D) to (B, D), and Phi^(0), (B, D).

        D is the number of entries of `shape`, 2N for separable warps. This is what `forward` solves;
        `lse_dec.contraction` measures how much it contracts.
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
            slopes = self.family.lifted(slopes)
            rest = {"rest": slopes - slopes.mean(-1, keepdim=True)}
            w0 = smooth_bound(slopes, self.ratio).reshape(b, -1)
        # constants of the solve, made once and not once a step
        averages = self.update.averages(x)
        canonical = self.family.canonical(x, self.segments)

        def update(state: Tensor) -> Tensor:
            w = state.view(b, *self.shape)
            proposal = self.update(canonical(w), averages).to(w)
            return self.rule(w, proposal, self.ratio, **rest).reshape(b, -1)

        return update, w0


BUILT_IN: Mapping[Any, Callable[..., WarpFamily]] = {
    SeparableWarp: Separable,
    GridWarp: CoupledGrid,
    TriangularWarp: TriangularFamily,
}
"""The families of lse-core's warps, which know nothing of networks."""


def family_of(warp: str | WarpFamily, inverse: str = "axes", order: str = "xy") -> WarpFamily:
    """The warp family of a name from the hook `lse_warps`, or the family itself.

    A class of warps from a plugin tells its family by an attribute `family`: a callable that gives a
    `WarpFamily`, with keywords `inverse` and `order` if there are others than the defaults, "axes" and "xy".

    Raises:
        UnknownNameError: nothing provides the name.
        LSEError: the named warps have no family that a DEC could search, or no such choice.
    """
    if isinstance(warp, WarpFamily):
        factory: Callable[..., WarpFamily] | None = lambda: warp  # noqa: E731
        name = type(warp).__name__
    elif not isinstance(warp, str):
        raise LSEError(f"dec: warp must be a name or a WarpFamily; got {warp!r}")
    else:
        kind, name = registry().get("warp", warp), warp
        factory = getattr(kind, "family", None) or BUILT_IN.get(kind)
    if factory is None:
        raise LSEError(
            f"dec: the warps {name!r} have no attribute family that gives an "
            "lse_dec.canonicalizers.WarpFamily, so a DEC cannot search them"
        )
    asked = {"inverse": inverse, "order": order}
    choices = {name: value for name, value in asked.items() if value not in ("axes", "xy")}
    for choice, value in choices.items():
        if not takes(factory, choice):
            raise LSEError(f"dec: {name} warps have one {choice} only; leave {choice}={value!r} out")
    return factory(**choices)
