"""Names that moved or went: importing one raises an ImportError of one line that says what replaced it.

`announce` writes down the old names of a package and puts one finder into `sys.meta_path`, which answers
only for announced names. It comes first, because the folder of a module that went may still lie there with
its compiled files in it, and Python would import that folder as an empty namespace package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["announce", "announce_file", "moved_names", "replacement"]

_MOVED: dict[str, str] = {}


def announce(moved: Mapping[str, str]) -> None:
    """Say what replaced modules, or attributes of packages, that existed in an earlier version.

    Args:
        moved: by full old name ("lse_dec.training") the full new name ("lse_train"), or, where no single
            name took its place, a sentence fragment on what to do instead ("pass warp= to adapt()").
            Submodules of an old name need no entry of their own.
    """
    _MOVED.update(moved)
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def announce_file(path: Path) -> None:
    """`announce` what a TOML file says, a table for each module: names in it and what replaced each."""
    import tomllib

    for module, names in tomllib.loads(path.read_text(encoding="utf-8")).items():
        announce({f"{module}.{name}": now for name, now in names.items()})


def moved_names(module: str) -> Callable[[str], Any]:
    """Make the `__getattr__` of a module that lost names, so that asking for one says what replaced it."""

    def get(name: str) -> Any:
        text = replacement(f"{module}.{name}")
        raise AttributeError(text or f"module {module!r} has no attribute {name!r}")

    return get


def replacement(name: str) -> str | None:
    """Return the line on what replaced `name`, or None where `name` was not announced."""
    now = _MOVED.get(name)
    if now is None:
        return None
    if not all(part.isidentifier() for part in now.split(".")):
        return f"{name} is gone: {now}"
    from importlib.util import find_spec  # here, since importing it takes longer than all of the rest

    package = now.partition(".")[0]
    install = "" if find_spec(package) else f"; install it first: pip install {package.replace('_', '-')}"
    return f"{name} is now {now}{install}"


class _Finder:
    """Refuses to import what was announced; leaves all other modules to the finders after it."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        # a ModuleNotFoundError would be swallowed by `from package import name`
        if text := replacement(name):
            raise ImportError(text, name=name)
