"""Metrics of consistency under local scaling, as functions and as torchmetrics classes.

The classes need torchmetrics (`pip install 'lse-core[metrics]'`) and are loaded when first asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names
from lse_core.metrics.functional import equivariance_error, invariance_error
from lse_core.moved import announce_file

if TYPE_CHECKING:
    from lse_core.metrics.stateful import EquivarianceError, InvarianceError

__all__ = [
    "EquivarianceError",
    "InvarianceError",
    "equivariance_error",
    "invariance_error",
]

announce_file(Path(__file__).with_name("moved.toml"))
__getattr__, __dir__ = lazy_names(__name__, {"stateful": ["EquivarianceError", "InvarianceError"]})
