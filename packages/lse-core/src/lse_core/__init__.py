"""Monotone scaling: the group, its warps, resampling and metrics for local scale equivariance.

Mathematics after "Local Scale Equivariance with Latent Deep Equilibrium Canonicalizer" (ICCV 2025).
Coordinates everywhere: the unit square in xy order, 0 and 1 at the centres of the first and last
pixel. Names load when first used, so `lse --help` need not wait for torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names

if TYPE_CHECKING:
    from lse_core.card import Card, attach, card_of
    from lse_core.errors import LSEError
    from lse_core.grid import GridWarp
    from lse_core.layouts import NCHW, NHWC, Layout, Tokens
    from lse_core.metrics import EquivarianceError, InvarianceError, equivariance_error, invariance_error
    from lse_core.monotone import MonotoneMap
    from lse_core.pictures import read_picture
    from lse_core.plugins import hookimpl, registry
    from lse_core.preprocess import Preprocess, preprocess_of
    from lse_core.resample import scale, unscale
    from lse_core.separable import SeparableWarp
    from lse_core.triangular import TriangularWarp

__version__ = "0.1.0"

_HOMES = {
    "card": ["Card", "attach", "card_of"],
    "errors": ["LSEError"],
    "grid": ["GridWarp"],
    "layouts": ["NCHW", "NHWC", "Layout", "Tokens"],
    "metrics": ["EquivarianceError", "InvarianceError", "equivariance_error", "invariance_error"],
    "monotone": ["MonotoneMap"],
    "pictures": ["read_picture"],
    "plugins": ["hookimpl", "registry"],
    "preprocess": ["Preprocess", "preprocess_of"],
    "resample": ["scale", "unscale"],
    "separable": ["SeparableWarp"],
    "triangular": ["TriangularWarp"],
}

__all__ = [
    "NCHW",
    "NHWC",
    "Card",
    "EquivarianceError",
    "GridWarp",
    "InvarianceError",
    "LSEError",
    "Layout",
    "MonotoneMap",
    "Preprocess",
    "SeparableWarp",
    "Tokens",
    "TriangularWarp",
    "attach",
    "card_of",
    "equivariance_error",
    "hookimpl",
    "invariance_error",
    "preprocess_of",
    "read_picture",
    "registry",
    "scale",
    "unscale",
]


_MOVED = {"commands.group": "lse_data.commands.group", "process": "lse_train.cpu"}

__getattr__, __dir__ = lazy_names(__name__, _HOMES, _MOVED, Path(__file__).with_name("names.toml"))
