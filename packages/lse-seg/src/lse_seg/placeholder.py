"""A placeholder for mmcv's compiled operators, so that mmsegmentation can be imported with mmcv-lite."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from lse_core.errors import LSEError

__all__ = ["NAME", "MissingOpError", "install"]

NAME = "mmcv._ext"


class MissingOpError(LSEError, NotImplementedError):
    """A compiled op of mmcv was called where only mmcv-lite is installed."""


class _Placeholder(ModuleType):
    """Gives a function for every op that mmcv asks for; calling it raises."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # the import system's and inspect's questions
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise MissingOpError(
                f"mmcv-lite has no compiled op {name!r}: build a full mmcv (>=2.0,<2.2) for this torch, "
                "or choose a model that does not call it"
            )

        missing.__name__ = name
        setattr(self, name, missing)
        return missing


def install() -> None:
    """Put the placeholder where `import mmcv._ext` finds it, unless something is there already."""
    if NAME in sys.modules:
        return
    module = _Placeholder(NAME, "Placeholder for the compiled ops that mmcv-lite lacks.")
    # the spec has no loader: mmcv and mmengine, which ask for one, go on saying that there are no ops
    module.__spec__ = ModuleSpec(NAME, None)
    sys.modules[NAME] = module
