"""Packages whose names load when first used, so that `lse --help` need not wait for torch (PEP 562)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lse_core.errors import LSEError
from lse_core.moved import announce, replacement

__all__ = ["import_object", "lazy_names"]


def lazy_names(
    package: str,
    homes: Mapping[str, Sequence[str]],
    moved: Mapping[str, str] | None = None,
    elsewhere: Path | None = None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` for a package.

    Args:
        package: the package's `__name__`.
        homes: names by the submodule they live in. A submodule must not bear the name of a function
            it holds: importing it would hide the function.
        moved: submodules and names that the package had in an earlier version, with what replaced each:
            its full new name, or a sentence fragment on what to do instead (see `lse_core.moved`).
        elsewhere: a TOML file of names that the package offers and other packages hold, which may be
            absent: lists of names by package. Asking for one of an absent package is an LSEError.

    Returns:
        Both functions, to be assigned in the package's `__init__`. An unknown name is an AttributeError;
        for a name in `moved`, that error and the ImportError of an import say what replaced it.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    announce({f"{package}.{name}": now for name, now in (moved or {}).items()})

    def get(name: str) -> Any:
        if name not in home_of:
            if elsewhere is not None and (holder := _holder(elsewhere, name)):
                return _from_other(package, holder, name)
            text = replacement(f"{package}.{name}")
            raise AttributeError(text or f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names


def _holder(file: Path, name: str) -> str | None:
    import tomllib

    offered = tomllib.loads(file.read_text(encoding="utf-8"))
    return next((package for package, names in offered.items() if name in names), None)


def _from_other(package: str, holder: str, name: str) -> Any:
    if importlib.util.find_spec(holder) is None:
        install = f"pip install {holder.replace('_', '-')}"
        raise LSEError(
            f"{package}.{name} is part of {holder.replace('_', '-')}, which is not installed: {install}"
        )
    return getattr(import_module(holder), name)


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
