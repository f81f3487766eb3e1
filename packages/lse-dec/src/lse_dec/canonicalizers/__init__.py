"""Canonicalizers: modules that find the warp to canonical form."""

from __future__ import annotations

from lse_dec.canonicalizers.base import Canonicalization, Canonicalizer
from lse_dec.canonicalizers.baselines import Canon, Identity, Optim
from lse_dec.canonicalizers.dec import DEC
from lse_dec.canonicalizers.families import Separable, WarpFamily
from lse_dec.canonicalizers.variation import Variation

__all__ = [
    "DEC",
    "Canon",
    "Canonicalization",
    "Canonicalizer",
    "Identity",
    "Optim",
    "Separable",
    "Variation",
    "WarpFamily",
]
