"""Packages whose names load when first used, so that `lse --help` need not wait for torch (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from lse_core.errors import LSEError
from lse_core.moved import announce, replacement

__all__ = ["import_object", "lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]], moved: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` for a package.

    Args:
        package: the package's `__name__`.
        homes: names by the submodule they live in. A submodule must not bear the name of a function
            it holds: importing it would hide the function.
        moved: submodules and names that the package had in an earlier version, with what replaced each:
            its full new name, or a sentence fragment on what to do instead (see `lse_core.moved`).

    Returns:
        Both functions, to be assigned in the package's `__init__`. An unknown name is an AttributeError;
        for a name in `moved`, that error and the ImportError of an import say what replaced it.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    announce({f"{package}.{name}": now for name, now in (moved or {}).items()})

    def get(name: str) -> Any:
        if name not in home_of:
            text = replacement(f"{package}.{name}")
            raise AttributeError(text or f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names


def import_object(path: str, what: str) -> Any:
    """Import the object "module:name". Call this only for names that the user trusts.

    Args:
        path: the name of a module, a colon, and a name in it.
        what: the object is, for errors ("model", "method").

    Raises:
        LSEError: there is no such module or name.
    """
    module, _, name = path.partition(":")
    try:
        found = import_module(module)
    except ImportError as error:
        raise LSEError(f"{what} {path!r}: cannot import {module!r} ({error})") from error
    if not name or not hasattr(found, name):
        raise LSEError(f"{what} {path!r}: {module!r} has no {name!r}")
    return getattr(found, name)
