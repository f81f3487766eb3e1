"""Checks shared by the solvers' settings."""

from __future__ import annotations

from lse_core.errors import LSEError

__all__ = ["positive"]


def positive(solver: str, name: str, value: float, least: float = 0.0) -> None:
    """Refuse a setting that is not a number above `least`."""
    if not value > least:
        raise LSEError(f"{solver} solver: {name} must be above {least:g}; got {value!r}")
