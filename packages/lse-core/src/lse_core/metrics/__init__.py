"""Metrics of consistency under local scaling: functions, and torchmetrics classes beside them.

The classes need torchmetrics (`pip install 'lse-core[metrics]'`) and are loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names
from lse_core.metrics.accuracy import ScaleAccuracy, accuracy_per_scale
from lse_core.metrics.functional import equivariance_error, invariance_error

if TYPE_CHECKING:
    from lse_core.metrics.stateful import AccuracyPerScale, EquivarianceError, InvarianceError

__all__ = [
    "AccuracyPerScale",
    "EquivarianceError",
    "InvarianceError",
    "ScaleAccuracy",
    "accuracy_per_scale",
    "equivariance_error",
    "invariance_error",
]

_MEAN = "give a torchmetrics.MeanMetric the errors of each batch, computed by"
_AUTHORS = "(logits.softmax(-1) - logits_scaled.softmax(-1)).norm(dim=-1)"
_CANONICAL = "of_scaled.distance(g @ of_input)"
_RESIDUAL = "(updated - state).flatten(1).square().mean(1).sqrt()"
_SOFT = "divide the norm of the violation by the norms of the input and of torch.func.jacrev's Jacobian"
_MOVED = {
    "AuthorsError": f"{_MEAN} {_AUTHORS}",
    "CanonicalizerEquivarianceError": f"{_MEAN} {_CANONICAL}",
    "FixedPointResidual": f"{_MEAN} {_RESIDUAL}",
    "SoftEquivarianceError": _SOFT,
    "authors_error": f"compute {_AUTHORS}",
    "canonicalizer_equivariance_error": f"call {_CANONICAL}",
    "fixed_point_residual": f"compute {_RESIDUAL}, or read the residual of the solver's result",
    "jacobian_norm": "take the norm of what torch.func.jacrev returns",
    "soft_equivariance_error": _SOFT,
}

__getattr__, __dir__ = lazy_names(
    __name__, {"stateful": ["AccuracyPerScale", "EquivarianceError", "InvarianceError"]}, _MOVED
)
