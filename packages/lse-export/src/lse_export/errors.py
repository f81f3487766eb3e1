"""Errors of this package, each one line for people."""

from __future__ import annotations

from lse_core.errors import LSEError

__all__ = ["ExportError", "VerificationError"]


class ExportError(LSEError, RuntimeError):
    """A model that cannot be exported, or an exported file that cannot be used."""


class VerificationError(LSEError, ArithmeticError):
    """An exported file does not compute what its model computes."""
