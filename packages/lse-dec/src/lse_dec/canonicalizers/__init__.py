"""Canonicalizers: modules that find the warp to canonical form."""

from __future__ import annotations

from lse_dec.canonicalizers.base import Canonicalization, Canonicalizer
from lse_dec.canonicalizers.canon import Canon
from lse_dec.canonicalizers.dec import DEC
from lse_dec.canonicalizers.identity import Identity
from lse_dec.canonicalizers.optim import Optim
from lse_dec.canonicalizers.variation import Variation

__all__ = ["DEC", "Canon", "Canonicalization", "Canonicalizer", "Identity", "Optim", "Variation"]
