"""Fixed-point solvers and the driver that runs them."""

from __future__ import annotations

from lse_dec.solvers.anderson import Anderson, AndersonI
from lse_dec.solvers.base import Code, Naive, Solution, Solver
from lse_dec.solvers.broyden import Broyden
from lse_dec.solvers.driver import solve
from lse_dec.solvers.torchdeq import TorchDEQAnderson, TorchDEQBroyden, TorchDEQNaive, register

__all__ = [
    "Anderson",
    "AndersonI",
    "Broyden",
    "Code",
    "Naive",
    "Solution",
    "Solver",
    "TorchDEQAnderson",
    "TorchDEQBroyden",
    "TorchDEQNaive",
    "register",
    "solve",
]
