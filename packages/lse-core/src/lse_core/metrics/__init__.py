"""Metrics of consistency under local scaling: functions, and torchmetrics classes beside them.

The classes need torchmetrics (`pip install lse-core[metrics]`) and are loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lse_core.metrics.functional import equivariance_error, invariance_error

if TYPE_CHECKING:
    from lse_core.metrics.stateful import EquivarianceError, InvarianceError

__all__ = ["EquivarianceError", "InvarianceError", "equivariance_error", "invariance_error"]


def __getattr__(name: str) -> Any:
    if name in ("EquivarianceError", "InvarianceError"):
        from lse_core.metrics import stateful

        return getattr(stateful, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
