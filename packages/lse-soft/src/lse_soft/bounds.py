"""Bounds on the error of one layer, from kappa and how far a group element is from the identity.

Exact, without the remainder of a Taylor series:

- invariant: w^T rho(g) x - w^T x = int_0^1 w^T A e^{sA} x ds, A = sum_k t_k A_k;
- equivariant: W e^X - e^Y W = int_0^1 e^{(1-s)Y} (W X - Y W) e^{sX} ds;
- discrete: w^T s^n x - w^T x = sum_k w^T (s - 1) s^k x.

Since ||w^T A|| <= ||t||_2 (sum_k ||w^T A_k||^2)^(1/2), for actions that keep norms the relative error is at
most kappa ||t||_2, or kappa times the number of steps in a discrete group.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lse_core.separable import SeparableWarp
from lse_soft.sampled import path_length

__all__ = ["error_bound", "scaling_bound", "vacuous_beyond"]


def error_bound(kappa: float, distance: float, growth: float = 1.0) -> float:
    """kappa * distance * growth: the largest ||F(rho_X x) - rho_Y F(x)|| / (||W||_F ||x||).

    Args:
        kappa: see `lse_soft.spectra.Spectrum.kappa`; the softness b is an upper bound of it.
        distance: ||t||_2 of the element exp(sum t_k A_k), or steps in a discrete group.
        growth: see `lse_soft.generators.growth`; 1 for actions that keep norms.
    """
    return kappa * distance * growth


def vacuous_beyond(kappa: float) -> float:
    """The distance from which on the bound is vacuous if the action preserves norms: 2 / kappa.

    No weight errs by more than 2 ||W|| ||x||.
    """
    return 2.0 / kappa if kappa > 0 else math.inf


def scaling_bound(kappa: float, warps: SeparableWarp) -> Tensor:
    """Bound on ||scale(p, l) - p|| / ||p|| in L2 of the unit square, (B,), for arrays p with `kappa`.

    kappa * d(l) * M, with d the path length 2 theta and M the root of the largest slopes' product. Along the
    geodesic k_t from the identity to l^-1 the derivative of p(k_t) is (v_t p')(k_t), |v_t| = d(l), and
    reading through k_t stretches norms by the root of 1 / min k_t' at most. The minimum is at the end
    of the path: with q_t = sqrt(k_t'), q_t >= min(q_1) (sin((1-t) theta) + sin(t theta)) / sin(theta),
    and the fraction is at least 1.

    Between functions; interpolation on pixels adds its own error. The same number bounds W S - S W of
    token mixing whose constraints are made of fields ("lie"), since the stretches before and after each
    step multiply to the same root (derived, not tested).
    """
    slopes = warps.x.slopes.amax(1) * warps.y.slopes.amax(1)
    return kappa * path_length(warps) * torch.sqrt(slopes)
