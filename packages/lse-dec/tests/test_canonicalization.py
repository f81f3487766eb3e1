"""Eq. 5, h(S(F; g)) = g h(F): residual and compose keep it at convergence, absolute does not.

The update is contracting and made by hand: it looks at the canonicalized map only, measures how much
of the map's variation each of the N segments holds, and asks for no change once all hold the same.
That condition is about the map's landmarks at the knots alone, so the knots must move with g exactly.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lse_core import SeparableWarp, scale, unscale
from lse_core.monotone import MonotoneMap, uniform_basis
from lse_dec.solvers import Anderson, Broyden, Naive, Solution, Solver, solve
from lse_dec.updates import Absolute, Compose, Residual, UpdateRule

N, PIXELS, RATIO = 8, 385, 4.0  # pixels: 8 segments of 48 steps, so the knots are pixels too
F64 = torch.float64


def features(batch: int = 2, seed: int = 0) -> Tensor:
    """Smooth maps (B, 2, H, W); channel 0 rises along x at every y, channel 1 along y at every x."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.linspace(0.0, 1.0, PIXELS, dtype=F64)
    y, x = torch.meshgrid(u, u, indexing="ij")
    maps = []
    for _ in range(batch):
        a, p = torch.rand(2, 4, generator=generator, dtype=F64)
        rise = 0.015 + 0.02 * a
        waves = [
            rise[i] * torch.sin(2 * math.pi * ((i % 2 + 1) * t + (0.5 * s + p[i])))
            for i, (t, s) in enumerate([(x, y), (x, y), (y, x), (y, x)])
        ]
        maps.append(torch.stack([x + waves[0] + 0.5 * waves[1], y + waves[2] + 0.5 * waves[3]]))
    return torch.stack(maps)


def excess(canonical: Tensor) -> Tensor:
    """ln(N share) of every segment in the map's variation along each axis, (B, 2, N)."""
    profiles = torch.stack([canonical[:, 0].amax(1), canonical[:, 1].amax(2)], dim=1)  # warp-proof: a max
    mass = profiles.diff(dim=-1).abs()
    shares = mass.unflatten(-1, (N, -1)).sum(-1)
    return (N * shares / shares.sum(-1, keepdim=True)).log()


@dataclass(frozen=True)
class Update:
    """One evaluation of the DEC's update, through the library's warp and rule."""

    maps: Tensor
    rule: UpdateRule

    def __call__(self, z: Tensor) -> Tensor:
        w = z.view(-1, 2, N)
        seen = excess(unscale(self.maps, SeparableWarp.from_log_slopes(w)))
        # residual subtracts its step, the other two take the proposal's sign
        sign = 1.0 if isinstance(self.rule, Residual) else -1.0
        gain = 0.7 if isinstance(self.rule, Absolute) else 1.6
        return self.rule(w, sign * gain * seen, RATIO).flatten(1)


def canonicalize(maps: Tensor, rule: UpdateRule, solver: Solver, steps: int = 30) -> Solution:
    z0 = torch.zeros(maps.shape[0], 2 * N, dtype=F64)
    return solve(Update(maps, rule), z0, solver, steps=steps, tol=1e-7)


def knot_values(z: Tensor) -> Tensor:
    w = z.view(-1, 2, N)
    return torch.stack([MonotoneMap.from_log_slopes(w[:, i]).values for i in (0, 1)], dim=1)


def mapped(g: SeparableWarp, knots: Tensor) -> Tensor:
    return torch.stack([g.x(knots[:, 0]), g.y(knots[:, 1])], dim=1)


def error(rule: UpdateRule, solver: Solver) -> tuple[float, Solution]:
    maps = features()
    g = SeparableWarp.random(2, 5, 1.8, generator=torch.Generator().manual_seed(7), dtype=F64)
    plain = canonicalize(maps, rule, solver)
    moved = canonicalize(scale(maps, g), rule, solver)
    wanted = mapped(g, knot_values(plain.z))
    assert (wanted - knot_values(plain.z)).abs().max() > 0.02  # g does move the knots
    both = torch.maximum(plain.residual, moved.residual)
    found = Solution(moved.z, both, moved.residuals, torch.maximum(plain.codes, moved.codes))
    return float((knot_values(moved.z) - wanted).abs().max()), found


@pytest.mark.parametrize("rule", [Residual(pull=0.0), Compose(pull=0.0)])
@pytest.mark.parametrize("solver", [Naive(), Anderson(), Broyden()])
def test_equivariant_at_convergence(rule: UpdateRule, solver: Solver) -> None:
    off, solution = error(rule, solver)
    assert (solution.codes == 0).all(), solution.residual
    assert off < 1e-4


@pytest.mark.parametrize("rule", [Residual(), Compose()])
def test_the_pull_costs_some_of_it(rule: UpdateRule) -> None:
    """By default both pull weakly towards the identity, for the sake of blank parts."""
    off, solution = error(rule, Anderson())
    assert (solution.codes == 0).all(), solution.residual
    assert 1e-3 < off < 1e-2


@pytest.mark.parametrize("solver", [Naive(), Anderson(), Broyden()])
def test_absolute_is_not(solver: Solver) -> None:
    off, solution = error(Absolute(), solver)
    assert solution.residual.max() < 1e-3  # it does converge, to the wrong place
    assert off > 1e-2


def test_the_hand_made_update_contracts() -> None:
    trace = canonicalize(features(), Residual(), Naive()).residuals
    assert (trace[5] < 0.7 * trace[4]).all()
    assert (trace[-1] < 1e-6 * trace[0]).all()


def test_without_convergence_nothing_is_promised() -> None:
    maps = features()
    g = SeparableWarp.random(2, 5, 1.8, generator=torch.Generator().manual_seed(7), dtype=F64)
    plain, moved = (canonicalize(m, Residual(), Naive(), steps=1) for m in (maps, scale(maps, g)))
    assert (plain.codes != 0).all()  # and it is said
    assert (knot_values(moved.z) - mapped(g, knot_values(plain.z))).abs().max() > 1e-2


def test_error_between_the_knots_falls_with_their_number() -> None:
    """N knots pin N points: between them g Phi* leaves Eq. 12's family, by less for more knots."""
    g = MonotoneMap.from_logits(torch.tensor([[0.9, -0.7, 0.4, -0.9, 0.6]], dtype=F64))
    u = torch.linspace(0.0, 1.0, 4001, dtype=F64)
    off = []
    for n in (4, 8, 16, 32):
        there = g(torch.linspace(0.0, 1.0, n + 1, dtype=F64)).squeeze(0)
        off.append(float(((uniform_basis(u, n) * there.diff()).sum(-1) - g(u)).abs().max()))
    assert off[-1] < 0.4 * off[0]
    assert all(b < a for a, b in pairwise(off))
