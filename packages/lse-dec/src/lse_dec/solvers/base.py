"""What a solver is, what a solve returns, and the plainest solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lse_core.errors import LSEError

__all__ = ["Code", "Naive", "Solution", "Solver", "WholeSolver", "lengths", "multiply_add", "positive"]


@runtime_checkable
class Solver(Protocol):
    """How to get the next iterate of z = f(z), for every sample of the batch on its own.

    A solver holds settings only. What it remembers between steps is in the `state` that it hands on. So one
    object serves any number of solves, and training, evaluation and export run the same steps. A step must
    not read values back to the host, nor branch on them.
    """

    def init(self, z: Tensor) -> Any:
        """State before the first step, for an initial guess (B, D)."""
        ...

    def step(self, z: Tensor, fz: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Next iterate and state from the iterate `z` and its image `fz`, both (B, D)."""
        ...


@runtime_checkable
class WholeSolver(Protocol):
    """A solver with a loop of its own, as other libraries have them; the driver records what it evaluates."""

    def run(self, f: Callable[[Tensor], Tensor], z0: Tensor, steps: int) -> None:
        """Search from `z0`, (B, D), with exactly `steps` evaluations of `f`; the result is what `f` saw."""
        ...


class Code(IntEnum):
    """How a sample's solve ended."""

    CONVERGED = 0
    STEPS_SPENT = 1
    NOT_FINITE = 2

    @property
    def text(self) -> str:
        """The code in words."""
        return (
            "converged to the tolerance",
            "all steps spent before the tolerance was met",
            "the update gave no finite value; the initial guess was kept",
        )[self]


@dataclass(frozen=True)
class Solution:
    """Result of a solve.

    Attributes:
        z: (B, D), the image f(z_b) of each sample's best iterate z_b.
        residual: (B,), |f(z_b) - z_b| there (root mean square over D); infinite where no step was finite.
        residuals: (K, B), the residual of every iterate in order; NaN where the update was NaN.
        codes: (B,) int64, values of `Code`.
    """

    z: Tensor
    residual: Tensor
    residuals: Tensor
    codes: Tensor

    @property
    def steps(self) -> int:
        """Evaluations of f, K."""
        return self.residuals.shape[0]

    def __getitem__(self, samples: slice) -> Solution:
        """The solves of the samples in a slice of the batch."""
        return Solution(
            self.z[samples], self.residual[samples], self.residuals[:, samples], self.codes[samples]
        )


def lengths(x: Tensor) -> Tensor:
    """Euclidean lengths of rows (B, D), (B, 1)."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def multiply_add(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a + b c in one operation; in exported graphs in two, where `torch.addcmul` would be three."""
    return a + b * c if torch.compiler.is_exporting() else torch.addcmul(a, b, c)


def positive(owner: str, name: str, value: float, *, kind: str = "solver") -> None:
    """Refuse a setting that is not a number above zero, NaN included."""
    if not value > 0.0:
        raise LSEError(f"{owner} {kind}: {name} must be above 0; got {value!r}")


@dataclass(frozen=True)
class Naive:
    """Naive (Picard) iteration z <- (1 - d) z + d f(z); converges where the update contracts.

    Args:
        damping: d, the share of the new value, above 0; 1 is undamped.

    Raises:
        LSEError: a damping that is not above 0.
    """

    damping: float = 1.0

    def __post_init__(self) -> None:
        positive("naive", "damping", self.damping)

    def init(self, z: Tensor) -> None:
        """Nothing to remember."""
        return

    def step(self, z: Tensor, fz: Tensor, state: None) -> tuple[Tensor, None]:
        """The damped image."""
        return (fz if self.damping == 1.0 else z + self.damping * (fz - z)), None
