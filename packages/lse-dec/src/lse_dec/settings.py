"""Building plugins from keyword settings, with clear words for a setting they do not know."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from lse_core.errors import unknown_name

__all__ = ["build", "takes"]

T = TypeVar("T")


def takes(factory: Callable[..., Any], name: str) -> bool:
    """Whether `factory` takes a keyword setting called `name`."""
    parameters = inspect.signature(factory).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def build(factory: Callable[..., T], *args: Any, **settings: Any) -> T:
    """Call `factory`, refusing unknown settings by name instead of swallowing them or a TypeError."""
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = [n for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        for name in settings:
            if name not in known:
                raise unknown_name(
                    f"setting of {getattr(factory, '__name__', factory)}", name, known[len(args) :]
                )
    return factory(*args, **settings)
