"""Checks shared by the solvers' settings."""

from __future__ import annotations

from lse_core.errors import LSEError

__all__ = ["positive"]


def positive(owner: str, name: str, value: float, *, kind: str = "solver") -> None:
    """Refuse a setting that is not a number above zero."""
    if not value > 0.0:
        raise LSEError(f"{owner} {kind}: {name} must be above 0; got {value!r}")
