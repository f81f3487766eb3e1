"""From singular values to factors: which directions are kept, and how much of each.

A softener is S_b = sum_i phi(sigma_i, b) u_i u_i^T. Where phi vanishes from b on ("hard", "cosine"), what it
gives lies in the range of P_b, the projector onto the directions with sigma < b, and therefore keeps the
relative bound kappa <= b. The tail of "exponential" reaches all directions, so it keeps no relative bound.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lse_core.errors import unknown_name
from lse_soft.errors import SoftError

__all__ = ["ZERO", "check_softness", "factors", "guarantees", "softness_for"]

ZERO = 1e-7
"""Singular values below this share of the largest one are rounding errors of zero."""

_HAS_GUARANTEE = {"hard": True, "cosine": True, "exponential": False}


def guarantees(threshold: str) -> bool:
    """Whether weights softened with `threshold` keep kappa <= b.

    Args:
        threshold: "hard", "cosine" or "exponential". For the last one only the absolute bound
            ||A^T w|| <= (b / e) ||theta|| holds, theta being the weights before softening.

    Raises:
        UnknownNameError: no such threshold.
    """
    if threshold not in _HAS_GUARANTEE:
        raise unknown_name("threshold", threshold, _HAS_GUARANTEE)
    return _HAS_GUARANTEE[threshold]


def check_softness(b: float) -> float:
    """`b` if it is a softness: at least 0, infinity included.

    Raises:
        SoftError: negative, or not a number.
    """
    if not b >= 0:
        raise SoftError(f"softness must be at least 0, which is equivariant; got {b}")
    return float(b)


def factors(sigma: Tensor, b: float, threshold: str = "cosine") -> Tensor:
    """phi(sigma, b), shape and dtype of `sigma`, within [0, 1].

    Args:
        sigma: singular values, at least 0; an exact 0 is an exactly equivariant direction and is kept
            whatever b is.
        b: softness. 0 keeps the equivariant directions alone, infinity keeps everything.
        threshold: "hard", 1 below b; "cosine", cos^2(pi sigma / 2b) below b; both are 0 from b on.
            "exponential", exp(-sigma / b), without a relative guarantee (see `guarantees`).

    Raises:
        UnknownNameError: no such threshold.
        SoftError: b is negative or not a number.
    """
    guarantees(threshold)
    check_softness(b)
    if b == 0 or math.isinf(b):
        return torch.ones_like(sigma) if b else (sigma == 0).to(sigma.dtype)
    if threshold == "exponential":
        return torch.exp(-sigma / b)
    inside = (sigma < b).to(sigma.dtype)
    if threshold == "hard":
        return inside
    return inside * torch.cos(0.5 * math.pi * (sigma / b).clamp_max(1.0)).square()


def softness_for(sigma: Tensor, keep: float) -> float:
    """The softness that keeps a share of all directions.

    Args:
        sigma: all singular values, ascending, each as often as it occurs.
        keep: share of the directions with sigma < b, within [0, 1]. Directions that share one singular
            value are kept or dropped together, so somewhat more may be kept. 1 gives infinity.

    Raises:
        SoftError: `keep` is out of range.
    """
    if not 0 <= keep <= 1:
        raise SoftError(f"keep is a share of the directions, within [0, 1]; got {keep}")
    count = round(keep * sigma.numel())
    if count == 0:
        return 0.0
    last = float(sigma[count - 1])
    beyond = sigma[sigma > last + ZERO * float(sigma[-1])]
    return float(beyond[0]) if beyond.numel() else math.inf
