"""Every error LSE raises on purpose: one line that says what, where and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ConvergenceError",
    "DTypeError",
    "DataError",
    "LSEError",
    "LSEWarning",
    "NotFiniteError",
    "OutputError",
    "PluginError",
    "ShapeError",
    "UnknownNameError",
    "WarpError",
    "check_finite",
    "unknown_name",
]


class LSEError(Exception):
    """Base of all errors raised on purpose by LSE packages; its text is one line for people."""


class LSEWarning(UserWarning):
    """Warns that something was left out or done differently than asked, in one line for people."""


class ShapeError(LSEError, ValueError):
    """A tensor's rank, size or batch does not fit the operation."""


class DTypeError(LSEError, TypeError):
    """A tensor's dtype or device does not fit the operation."""


class NotFiniteError(LSEError, ValueError):
    """A tensor holds NaN or infinity where numbers are needed."""


class WarpError(LSEError, ValueError):
    """A warp is not monotone: its knots are out of order, a slope is zero, or it folds."""


class UnknownNameError(LSEError, LookupError):
    """No installed plugin provides the solver, rule, stage, backbone or other object of this name."""


class PluginError(LSEError):
    """A plugin is broken, or two plugins claim one name."""


class ConvergenceError(LSEError, ArithmeticError):
    """A fixed-point solve did not converge, and the caller asked for an exception."""


class DataError(LSEError, ValueError):
    """Settings of a data set do not fit together, or its files are missing or cannot be read."""


class OutputError(LSEError, OSError):
    """An output file or folder cannot be written or would be overwritten."""


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """Build the error for an unknown `name`: closest match first, then what is `known`, the nearest of many.

    Args:
        kind: what was asked for, in the singular ("solver", "stage").
        name: the name nobody provides.
        known: the names that exist.
        hint: what else to do, appended as its own sentence.
    """
    names, name = sorted(known), str(name)[:80]
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    shown = f"Known: {', '.join(names) or 'none'}."
    if len(names) > 24:  # a ViT has dozens of stages, timm a thousand models: one line stays one line
        shown = f"Of {len(names)} known the nearest are: {', '.join(get_close_matches(name, names, 5, 0.0))}."
    return UnknownNameError(f"unknown {kind} {name!r}.{guess} {shown}{' ' + hint if hint else ''}")


def check_finite(x: Tensor, what: str) -> None:
    """Raise `NotFiniteError` if `x` (any shape, floating dtype) holds NaN or infinity.

    Reads one value back to the host, so it belongs at the edges of a program, not in its loops.
    """
    if not bool(x.isfinite().all()):
        bad = int((~x.isfinite()).sum())
        raise NotFiniteError(
            f"{what} contains {bad} values that are NaN or infinite; remove them from the input"
        )
