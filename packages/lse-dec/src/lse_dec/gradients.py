"""How gradients pass a fixed point: phantom steps, the implicit function theorem, or full unrolling.

The forward solve runs without a graph, because the gradient of an acceleration is wrong by orders of
magnitude once the solve has converged. These objects then attach a gradient to the solution, through
torchdeq.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torchdeq.grad import backward_factory

from lse_core.errors import LSEError, unknown_name
from lse_dec.solvers import Anderson, Solution, Solver, solve
from lse_dec.solvers.base import positive

__all__ = ["GRADIENTS", "Gradient", "Implicit", "Phantom", "Unrolled", "as_gradient"]

Update = Callable[[Tensor], Tensor]


class Gradient(Protocol):
    """Solves z = f(z) and returns the solution with a gradient attached."""

    def solve(self, f: Update, z0: Tensor, solver: Solver, **options: Any) -> Solution:
        """As `lse_dec.solvers.solve`, with `Solution.z` differentiable in what `f` depends on."""
        ...


def _detached(f: Update, z0: Tensor, solver: Solver, options: dict[str, Any]) -> Solution:
    with torch.no_grad():
        return solve(f, z0, solver, **options)


def _with(solution: Solution, z: Tensor) -> Solution:
    # a sample whose update is not finite keeps the finite state that the solver kept for it
    z = torch.where(z.isfinite().all(-1, keepdim=True), z, solution.z)
    return Solution(z, solution.residual, solution.residuals, solution.codes)


def lowered(device: str) -> bool:
    """Whether autocast is on for a kind of device; never on those that have none, such as "meta"."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _in_this_autocast(f: Update, device: str) -> Update:
    """`f` under the autocast of now: backward passes run outside of the forward's."""
    if not lowered(device):
        return f
    dtype = torch.get_autocast_dtype(device)

    def same(z: Tensor) -> Tensor:
        with torch.autocast(device, dtype=dtype):
            return f(z)

    return same


@dataclass(frozen=True)
class Phantom:
    """Phantom gradient (Geng et al., 2021): a few more damped steps, and the gradient of those.

    Args:
        steps: how many, at least 1. On a typical contraction the gradient is 40% off with 1 step, 1% with 5.
        damping: share of the new value in each step, above 0.

    Raises:
        LSEError: a setting out of its range.
    """

    steps: int = 3
    damping: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise LSEError(f"phantom gradient: steps must be at least 1; got {self.steps!r}")
        positive("phantom", "damping", self.damping, kind="gradient")

    def solve(self, f: Update, z0: Tensor, solver: Solver, **options: Any) -> Solution:
        """Solve without a graph, then take the phantom steps with one."""
        solution = _detached(f, z0, solver, options)
        if not torch.is_grad_enabled():
            return solution
        attach = backward_factory(grad_type=self.steps, tau=self.damping)

        def damped(z: Tensor, tau: float = 1.0) -> Tensor:
            fz = f(z)
            return fz if tau == 1.0 else tau * fz + (1.0 - tau) * z

        return _with(solution, attach(None, damped, solution.z)[0])


@dataclass(frozen=True)
class Implicit:
    """Implicit function theorem: the backward pass solves y = J^T y + grad, with the memory of one step.

    Do not differentiate twice: torchdeq's second derivative is wrong, and it raises no error.

    Args:
        steps: evaluations in the backward solve, at least 1.
        tol: tolerance of the backward solve, a root mean square.
        solver: solver of the backward solve.

    Raises:
        LSEError: a setting out of its range.
    """

    steps: int = 20
    tol: float = 1e-7
    solver: Solver = field(default_factory=lambda: Anderson(m=5))

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise LSEError(f"implicit gradient: steps must be at least 1; got {self.steps!r}")

    def solve(self, f: Update, z0: Tensor, solver: Solver, **options: Any) -> Solution:
        """Solve without a graph, then attach the implicit backward."""
        solution = _detached(f, z0, solver, options)
        if not torch.is_grad_enabled():
            return solution

        def backward_solver(g: Update, x0: Tensor, **_: Any) -> tuple[Tensor, list[Tensor], dict[str, Any]]:
            result = solve(g, x0, self.solver, steps=self.steps, tol=self.tol)
            return result.z, [], {}

        # no hook: torchdeq's hook raises when one module runs twice before backward
        attach = backward_factory(grad_type="ift", hook_ift=False, b_solver=backward_solver)
        again = _in_this_autocast(f, z0.device.type)
        return _with(solution, attach(None, again, solution.z)[0])


@dataclass(frozen=True)
class Unrolled:
    """Plain backpropagation through every step: memory grows with the number of steps."""

    def solve(self, f: Update, z0: Tensor, solver: Solver, **options: Any) -> Solution:
        """Solve with the graph on."""
        return solve(f, z0, solver, **options)


GRADIENTS: dict[str, Callable[[], Gradient]] = {
    "phantom": Phantom,
    "implicit": Implicit,
    "unrolled": Unrolled,
}


def as_gradient(gradient: Gradient | str) -> Gradient:
    """A gradient method from its name ("phantom", "implicit", "unrolled") or itself; UnknownNameError."""
    if not isinstance(gradient, str):
        return gradient
    if gradient not in GRADIENTS:
        raise unknown_name("gradient", gradient, GRADIENTS)
    return GRADIENTS[gradient]()
