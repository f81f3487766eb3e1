"""The Deep Equilibrium Canonicalizer (section 4.2): the warp is the fixed point of a learned update."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, ShapeError
from lse_core.monotone import uniform_basis
from lse_core.resample import averaging_weights, axis_weights, pixel_centres, warp_by_weights
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization
from lse_dec.canonicalizers.network import UpdateNetwork
from lse_dec.gradients import Gradient, as_gradient
from lse_dec.solvers import Anderson, Solver
from lse_dec.updates import Residual, UpdateRule

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
        self.ratio, self.resolution, self.tol = ratio, resolution, tol
        self.rule: UpdateRule = rule if rule is not None else Residual()
        self.solver: Solver = solver if solver is not None else Anderson()
        self.gradient = as_gradient(gradient)
        # the scale of latent features is anybody's guess; images come normalised, and a norm over
        # one to three channels would erase them
        self.norm = nn.LayerNorm(channels) if channels >= 8 else nn.Identity()
        self.project = nn.Linear(channels, projection)
        self.update = UpdateNetwork(projection, segments, widths)

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
            start: initial log-slopes (B, 2, N), Phi^(0); None starts at the identity.

        Returns:
            The warp, in float32 (float64 for float64 features), and its solve.

        Raises:
            ShapeError: wrong rank or channels.
        """
        axis = 3 if channels_last else 1
        if features.ndim != 4 or features.shape[axis] != self.channels:
            raise ShapeError(
                f"dec made for {self.channels} channels got features of shape {tuple(features.shape)} "
                f"({'channels last' if channels_last else 'channels first'})"
            )
        x = self.reduce(features, channels_last)
        b, n = x.shape[0], self.segments
        # coordinates need at least float32, whatever the features' precision
        precise = torch.promote_types(features.dtype, torch.float32)
        w0 = torch.zeros(b, 2 * n, device=x.device, dtype=precise)
        if start is not None:
            w0 = start.to(w0).reshape(b, 2 * n)
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
            return self.rule(w, self.update(canonical).to(w), self.ratio).reshape(b, 2 * n)

        solution = self.gradient.solve(
            update, w0, self.solver, steps=self.steps if steps is None else steps, tol=self.tol
        )
        return Canonicalization(SeparableWarp.from_log_slopes(solution.z.view(b, 2, n)), solution)

    def reduce(self, features: Tensor, channels_last: bool) -> Tensor:
        """The small map the update sees: (B, projection, h, w) with h, w at most `resolution`."""
        h, w = features.shape[1:3] if channels_last else features.shape[2:4]
        small_h, small_w = min(h, self.resolution), min(w, self.resolution)
        x = features
        if (small_h, small_w) != (h, w):
            a_y, a_x = (
                averaging_weights(big, small, device=x.device, dtype=torch.float32).unsqueeze(0)
                for big, small in ((h, small_h), (w, small_w))
            )
            x = warp_by_weights(
                x, a_x.expand(x.shape[0], -1, -1), a_y.expand(x.shape[0], -1, -1), channels_last=channels_last
            )
        x = x if channels_last else x.permute(0, 2, 3, 1)
        return self.project(self.norm(x)).permute(0, 3, 1, 2)
