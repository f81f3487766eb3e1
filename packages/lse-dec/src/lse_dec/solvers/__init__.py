"""Fixed-point solvers: one file each, one driver."""

from __future__ import annotations

from lse_dec.solvers.anderson import Anderson
from lse_dec.solvers.anderson_i import AndersonI
from lse_dec.solvers.base import Code, Solution, Solver
from lse_dec.solvers.broyden import Broyden
from lse_dec.solvers.driver import solve
from lse_dec.solvers.naive import Naive
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
    "solve",
]

register()
