"""The error of this package."""

from __future__ import annotations

from lse_core.errors import LSEError

__all__ = ["SoftError"]


class SoftError(LSEError, ValueError):
    """A group, a softness or a place does not fit the model; the text says what to do."""
