"""Metrics of consistency under local scaling: functions, and torchmetrics classes beside them.

The classes need torchmetrics (`pip install lse-core[metrics]`) and are loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lse_core.metrics.accuracy import ScaleAccuracy, accuracy_per_scale
from lse_core.metrics.authors import authors_error
from lse_core.metrics.canonical import canonicalizer_equivariance_error, fixed_point_residual
from lse_core.metrics.functional import equivariance_error, invariance_error
from lse_core.metrics.soft import jacobian_norm, soft_equivariance_error

if TYPE_CHECKING:
    from lse_core.metrics.stateful import (
        AccuracyPerScale,
        AuthorsError,
        CanonicalizerEquivarianceError,
        EquivarianceError,
        FixedPointResidual,
        InvarianceError,
        SoftEquivarianceError,
    )

_STATEFUL = (
    "AccuracyPerScale",
    "AuthorsError",
    "CanonicalizerEquivarianceError",
    "EquivarianceError",
    "FixedPointResidual",
    "InvarianceError",
    "SoftEquivarianceError",
)

__all__ = [
    "AccuracyPerScale",
    "AuthorsError",
    "CanonicalizerEquivarianceError",
    "EquivarianceError",
    "FixedPointResidual",
    "InvarianceError",
    "ScaleAccuracy",
    "SoftEquivarianceError",
    "accuracy_per_scale",
    "authors_error",
    "canonicalizer_equivariance_error",
    "equivariance_error",
    "fixed_point_residual",
    "invariance_error",
    "jacobian_norm",
    "soft_equivariance_error",
]


def __getattr__(name: str) -> Any:
    if name in _STATEFUL:
        from lse_core.metrics import stateful

        return getattr(stateful, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
