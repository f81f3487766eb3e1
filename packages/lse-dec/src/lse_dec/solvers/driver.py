"""The one loop that runs every solver: best iterate kept, residuals recorded, NaN confined."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lse_core.errors import ConvergenceError, ShapeError
from lse_dec.solvers.base import Code, Solution, Solver, WholeSolver, lengths

__all__ = ["solve"]


def solve(
    f: Callable[[Tensor], Tensor],
    z0: Tensor,
    solver: Solver | WholeSolver,
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
        solver: how to get from one iterate to the next, or a `WholeSolver`, which spends all its steps.
        steps: evaluations of `f`, at least 1. All are spent unless `stop_early`.
        tol: absolute tolerance.
        rtol: relative tolerance.
        stop_early: freeze each sample when it has converged, and stop when all have, which waits for the
            device in every step. Off, the loop has a fixed length and never waits.
        throw: raise ConvergenceError if any sample did not converge; asks the device once.

    Returns:
        The `Solution`. Gradients flow through all of it if `f` and the grad mode allow; see
        `lse_dec.gradients` for better ways.

    Raises:
        ShapeError: no steps, or a state that is not (B, D).
        ConvergenceError: see `throw`.
    """
    if steps < 1:
        raise ShapeError(f"a solve needs at least 1 step; got {steps}")
    if z0.ndim != 2:
        raise ShapeError(f"the state must be (batch, D); got {tuple(z0.shape)}")
    record = _Record(z0, tol, rtol, freeze=stop_early)
    if isinstance(solver, WholeSolver):

        def watched(z: Tensor) -> Tensor:
            fz = f(z)
            record.see(z, fz)
            return fz

        solver.run(watched, z0, steps)
    else:
        _iterate(f, z0, solver, steps, record, stop_early)
    solution = record.solution()
    if throw and bool((solution.codes != Code.CONVERGED).any()):
        failed, worst = int((solution.codes != Code.CONVERGED).sum()), int(solution.codes.max())
        raise ConvergenceError(
            f"{failed} of {len(solution.codes)} solves failed after {solution.steps} steps: "
            f"{Code(worst).text}; worst residual {float(solution.residual.max()):.3g}, tolerance {tol:g}"
        )
    return solution


def _iterate(
    f: Callable[[Tensor], Tensor], z0: Tensor, solver: Solver, steps: int, record: _Record, stop_early: bool
) -> None:
    z, state = z0, solver.init(z0)
    for k in range(steps):
        fz = f(z)
        record.see(z, fz)
        if record.done is not None and stop_early and bool(record.done.all()):
            break
        if k + 1 < steps:
            proposal, state = solver.step(z, fz, state)
            # a step that overflowed restarts from the best point seen; only finite numbers times 0 are 0
            finite = (0.0 * proposal).sum(-1, keepdim=True) == 0.0
            z = torch.where(finite, proposal, record.best)


class _Record:
    """What a solve has seen so far: every residual, and each sample's best."""

    def __init__(self, z0: Tensor, tol: float, rtol: float, freeze: bool) -> None:
        self.tol, self.rtol, self.freeze = tol, rtol, freeze
        self.best = z0
        self.least = torch.full_like(z0[:, :1], torch.inf)
        self.done: Tensor | None = None
        # lengths (B, 1) of residuals; a root mean square is a length over this
        self.trace: list[Tensor] = []
        self.root = z0.shape[1] ** 0.5

    def see(self, z: Tensor, fz: Tensor) -> None:
        """Take note of an iterate and its image."""
        length = lengths(fz - z)
        self.trace.append(length)
        better = length < self.least  # false for NaN: a bad step never replaces a good one
        if self.freeze and self.done is not None:
            better = better & ~self.done
        self.best = torch.where(better, fz, self.best)
        self.least = torch.where(better, length, self.least)
        if self.freeze or self.rtol:
            self.done = self._within() if self.done is None else self.done | self._within()

    def _within(self) -> Tensor:
        """Whose best iterate meets the tolerance, (B, 1)."""
        allowed = self.tol * self.root
        return self.least <= (allowed + self.rtol * lengths(self.best) if self.rtol else allowed)

    def solution(self) -> Solution:
        """The best of every sample."""
        # the least residual only falls, so without a relative tolerance the last one tells
        done = self._within() if self.done is None else self.done
        failed = torch.where(self.least < torch.inf, int(Code.STEPS_SPENT), int(Code.NOT_FINITE))
        codes = torch.where(done, int(Code.CONVERGED), failed).squeeze(1)
        residuals = torch.cat(self.trace, dim=1).T / self.root
        return Solution(self.best, self.least.squeeze(1) / self.root, residuals, codes)
