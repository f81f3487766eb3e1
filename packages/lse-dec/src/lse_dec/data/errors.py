"""The error of this package's data sets."""

from __future__ import annotations

from lse_core.errors import LSEError

__all__ = ["DataError"]


class DataError(LSEError, ValueError):
    """Settings of a data set that do not fit together, or source files that are missing or unreadable."""
