"""Monotone scaling: the group, its warps, resampling and metrics for local scale equivariance.

Mathematics after "Local Scale Equivariance with Latent Deep Equilibrium Canonicalizer" (ICCV 2025).
Coordinates everywhere: the unit square in xy order, 0 and 1 at the centres of the first and last
pixel. Names load when first used, so `lse --help` need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lse_core.errors import LSEError
    from lse_core.grid import GridWarp
    from lse_core.layouts import NCHW, NHWC, Layout, Tokens
    from lse_core.metrics import EquivarianceError, InvarianceError, equivariance_error, invariance_error
    from lse_core.monotone import MonotoneMap
    from lse_core.plugins import hookimpl, registry
    from lse_core.resample import scale, unscale
    from lse_core.separable import SeparableWarp

__version__ = "0.1.0"

_HOMES = {
    "errors": ["LSEError"],
    "grid": ["GridWarp"],
    "layouts": ["NCHW", "NHWC", "Layout", "Tokens"],
    "metrics": ["EquivarianceError", "InvarianceError", "equivariance_error", "invariance_error"],
    "monotone": ["MonotoneMap"],
    "plugins": ["hookimpl", "registry"],
    "resample": ["scale", "unscale"],
    "separable": ["SeparableWarp"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "NCHW",
    "NHWC",
    "EquivarianceError",
    "GridWarp",
    "InvarianceError",
    "LSEError",
    "Layout",
    "MonotoneMap",
    "SeparableWarp",
    "Tokens",
    "equivariance_error",
    "hookimpl",
    "invariance_error",
    "registry",
    "scale",
    "unscale",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lse_core' has no attribute {name!r}")
    value = getattr(import_module(f"lse_core.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
