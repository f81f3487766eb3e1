"""Deep equilibrium canonicalizers that make any timm model consistent under local scaling."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lse_dec.adaptation import AdaptedModel, adapt, observe, unadapt
    from lse_dec.checkpoint import load, save

__version__ = "0.1.0"

_HOMES = {
    "AdaptedModel": "adaptation",
    "adapt": "adaptation",
    "load": "checkpoint",
    "observe": "adaptation",
    "save": "checkpoint",
    "unadapt": "adaptation",
}

__all__ = ["AdaptedModel", "adapt", "load", "observe", "save", "unadapt"]


def __getattr__(name: str) -> Any:
    # loaded when first used: the command line's help must not wait for torch and timm
    if name in _HOMES:
        return getattr(import_module(f"lse_dec.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lse_dec' has no attribute {name!r}")
