"""The one loop that runs every solver: best iterate kept, residuals recorded, NaN confined."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lse_core.errors import ConvergenceError, ShapeError
from lse_dec.solvers.base import Code, Solution, Solver, rms, row_where

__all__ = ["solve"]


def solve(
    f: Callable[[Tensor], Tensor],
    z0: Tensor,
    solver: Solver,
    *,
    steps: int = 5,
    tol: float = 1e-4,
    rtol: float = 0.0,
    stop_early: bool = False,
    throw: bool = False,
) -> Solution:
    """Find z = f(z) for every sample of a batch.

    A sample has converged once |f(z) - z| <= tol + rtol |f(z)| (root mean squares over D). No
    sample's result depends on its batch mates, and a NaN in one stays there.

    Args:
        f: the update, (B, D) to (B, D), acting on each sample on its own.
        z0: (B, D) floating point initial guess.
        solver: the step rule.
        steps: evaluations of `f`, at least 1. All are spent unless `stop_early`.
        tol: absolute tolerance.
        rtol: relative tolerance.
        stop_early: freeze each sample when it has converged and stop when all have; asks the
            device once a step. Off, the loop has a fixed length and never waits for the device.
        throw: raise ConvergenceError if any sample did not converge.

    Returns:
        The `Solution`. Gradients flow through all of it if `f` and the grad mode allow; see
        `lse_dec.gradients` for better ways.
    """
    if steps < 1:
        raise ShapeError(f"a solve needs at least 1 step; got {steps}")
    if z0.ndim != 2:
        raise ShapeError(f"the state must be (batch, D); got {tuple(z0.shape)}")
    z, state = z0, solver.init(z0)
    best = z0
    best_residual = torch.full_like(z0[:, 0], torch.inf)
    done = torch.zeros_like(best_residual, dtype=torch.bool)
    trace: list[Tensor] = []
    for k in range(steps):
        fz = f(z)
        residual = rms(fz - z)
        trace.append(residual)
        better = residual < best_residual  # false for NaN: a bad step never replaces a good one
        if stop_early:
            better = better & ~done
        best = row_where(better, fz, best)
        best_residual = torch.where(better, residual, best_residual)
        done = done | (best_residual <= tol + rtol * rms(best))
        if stop_early and bool(done.all()):
            break
        if k + 1 < steps:
            proposal, state = solver.step(z, fz, state)
            finite = proposal.isfinite().all(-1)
            # a step that overflowed restarts from the best point seen
            z = row_where(finite, proposal, best)
    codes = torch.where(
        done,
        int(Code.CONVERGED),
        torch.where(best_residual.isfinite(), int(Code.STEPS_SPENT), int(Code.NOT_FINITE)),
    )
    solution = Solution(best, best_residual, torch.stack(trace), codes)
    if throw and bool((codes != Code.CONVERGED).any()):
        worst = int(codes.max())
        raise ConvergenceError(
            f"{int((codes != Code.CONVERGED).sum())} of {len(codes)} solves failed after {solution.steps} "
            f"steps: {Code(worst).text}; worst residual {float(best_residual.max()):.3g}, tolerance {tol:g}"
        )
    return solution
