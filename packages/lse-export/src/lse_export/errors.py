"""Errors of this package, each one line for people."""

from __future__ import annotations

from lse_core.errors import LSEError

__all__ = ["ExportError", "VerificationError", "first_line"]


class ExportError(LSEError, RuntimeError):
    """A model that cannot be exported, or an exported file that cannot be used."""


class VerificationError(LSEError, ArithmeticError):
    """An exported file does not compute what its model computes."""


def first_line(error: BaseException, most: int = 240) -> str:
    """The first line of an error's text, cut to `most` characters; the error's class where it has no text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:most] if lines else type(error).__name__
