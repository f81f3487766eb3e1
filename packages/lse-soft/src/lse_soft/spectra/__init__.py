"""Singular values of a group's constraints on weights, and the filters built from them."""

from __future__ import annotations

from lse_soft.spectra.base import Filter, Spectrum
from lse_soft.spectra.blocks import BlockSpectrum
from lse_soft.spectra.chebyshev import ChebyshevSpectrum
from lse_soft.spectra.dense import DenseSpectrum
from lse_soft.spectra.kronecker import KroneckerSpectrum
from lse_soft.spectra.normal import NormalForm, NormalSpectrum

__all__ = [
    "BlockSpectrum",
    "ChebyshevSpectrum",
    "DenseSpectrum",
    "Filter",
    "KroneckerSpectrum",
    "NormalForm",
    "NormalSpectrum",
    "Spectrum",
]
