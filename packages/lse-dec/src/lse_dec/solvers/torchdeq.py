"""torchdeq's solvers under names of ours; after `register()`, our solvers under names in torchdeq."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchdeq.solver import get_solver, register_solver
from torchdeq.solver.stat import SolverStat

from lse_core.errors import LSEError, unknown_name
from lse_core.plugins import registry
from lse_dec.solvers.base import Solver, positive
from lse_dec.solvers.driver import solve

__all__ = ["TorchDEQ", "TorchDEQAnderson", "TorchDEQBroyden", "TorchDEQNaive", "register"]


@dataclass(frozen=True)
class TorchDEQ:
    """One of torchdeq's solvers in our driver, which keeps the best iterate, the trace and the codes.

    For comparison. Runs all its steps, because torchdeq's own stopping looks at the batch as a whole, so that
    a sample's result would depend on its batch mates. Its Anderson stalls near its absolute regularisation.
    None of these solvers keeps a NaN within its sample or bounds a step, and none exports.
    """

    name: ClassVar[str]
    least: ClassVar[int]  # steps that it needs; Anderson would return the initial guess for fewer
    before: ClassVar[int] = 0  # evaluations that its max_iter does not count

    def run(self, f: Callable[[Tensor], Tensor], z0: Tensor, steps: int) -> None:
        """As `lse_dec.solvers.base.WholeSolver`; LSEError for fewer steps than the solver can take."""
        if steps < self.least:
            raise LSEError(f"torchdeq.{self.name} needs at least {self.least} steps; got {steps}")
        get_solver(self.name)(f, z0, max_iter=steps - self.before, tol=0.0, **self._settings())

    def _settings(self) -> dict[str, Any]:
        """Settings under torchdeq's names."""
        return asdict(self)


@dataclass(frozen=True)
class TorchDEQNaive(TorchDEQ):
    """torchdeq's fixed_point_iter.

    Args:
        tau: damping, the share of the new value.
    """

    name, least = "fixed_point_iter", 1
    tau: float = 1.0

    def __post_init__(self) -> None:
        positive("torchdeq.fixed_point_iter", "tau", self.tau)


@dataclass(frozen=True)
class TorchDEQAnderson(TorchDEQ):
    """torchdeq's anderson.

    Args:
        m: iterates remembered, at least 2 (1 crashes it).
        lam: its absolute regularisation.
        tau: damping.
    """

    name, least = "anderson", 3
    m: int = 6
    lam: float = 1e-4
    tau: float = 1.0

    def __post_init__(self) -> None:
        if self.m < 2:
            raise LSEError(f"torchdeq.anderson solver: m must be at least 2; got {self.m!r}")
        positive("torchdeq.anderson", "lam", self.lam)
        positive("torchdeq.anderson", "tau", self.tau)


@dataclass(frozen=True)
class TorchDEQBroyden(TorchDEQ):
    """torchdeq's broyden.

    Args:
        memory: rank-one updates kept (its LBFGS_thres), at least 1; None keeps all.
    """

    name, least, before = "broyden", 2, 1
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < 1:
            raise LSEError(f"torchdeq.broyden solver: memory must be at least 1; got {self.memory!r}")

    def _settings(self) -> dict[str, Any]:
        return {"LBFGS_thres": self.memory}


def register() -> None:
    """Make our solvers known to torchdeq as "lse.naive", "lse.anderson" and so on, those of plugins too.

    Changes torchdeq's registry, which belongs to the whole process, so nothing in LSE calls it. The solvers
    take torchdeq's `max_iter`, `tol`, `stop_mode` and their own settings, and refuse others; each sample
    stops on its own.
    """
    for name, factory in registry().items("solver"):
        if not name.startswith("torchdeq."):
            register_solver(f"lse.{name}", _for_torchdeq(name, factory))


def _for_torchdeq(name: str, factory: Callable[..., Solver]) -> Callable[..., Any]:
    def solver(
        func: Callable[[Tensor], Tensor],
        x0: Tensor,
        max_iter: int = 50,
        tol: float = 1e-3,
        stop_mode: str = "abs",
        indexing: Any = None,
        return_final: bool = False,
        **settings: Any,
    ) -> tuple[Tensor, list[Tensor], SolverStat]:
        if stop_mode not in ("abs", "rel"):
            raise unknown_name("stop_mode", stop_mode, ["abs", "rel"])
        if indexing or return_final:
            raise LSEError(
                f"lse.{name} returns the best iterate, so it supports neither indexing nor return_final"
            )
        try:
            step = factory(**settings)
        except TypeError as error:
            raise LSEError(f"lse.{name}: {error}") from error
        relative = stop_mode == "rel"
        found = solve(
            lambda z: func(z.view_as(x0)).reshape(x0.shape[0], -1),
            x0.reshape(x0.shape[0], -1),
            step,
            steps=max_iter,
            # torchdeq measures lengths, we measure root mean squares
            tol=0.0 if relative else tol / max(1, x0[0].numel()) ** 0.5,
            rtol=tol if relative else 0.0,
            stop_early=True,
        )
        length = x0[0].numel() ** 0.5
        size = found.z.norm(dim=1) + 1e-9
        trace = length * found.residuals.T
        stat = SolverStat(
            abs_lowest=length * found.residual,
            rel_lowest=length * found.residual / size,
            abs_trace=trace,
            rel_trace=trace / size.unsqueeze(1),
            nstep=torch.full_like(found.residual, found.steps),
        )
        return found.z.view_as(x0), [], stat

    return solver
