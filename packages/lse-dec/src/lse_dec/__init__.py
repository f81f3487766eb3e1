"""Deep equilibrium canonicalizers that make any timm model consistent under local scaling."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lse_dec.adaptation import AdaptedModel, adapt, observe, unadapt

__version__ = "0.1.0"
__all__ = ["AdaptedModel", "adapt", "observe", "unadapt"]


def __getattr__(name: str) -> Any:
    # loaded when first used: the command line's help must not wait for torch and timm
    if name in __all__:
        return getattr(import_module("lse_dec.adaptation"), name)
    raise AttributeError(f"module 'lse_dec' has no attribute {name!r}")
