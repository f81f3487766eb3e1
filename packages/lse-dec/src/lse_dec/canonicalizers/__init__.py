"""Canonicalizers: modules that find the warp to canonical form."""

from __future__ import annotations

from lse_dec.canonicalizers.base import Canonicalization, Canonicalizer
from lse_dec.canonicalizers.dec import DEC

__all__ = ["DEC", "Canonicalization", "Canonicalizer"]
