"""The metrics as torchmetrics classes: update batch by batch, exact across processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lse_core.errors import LSEError
from lse_core.layouts import Layout
from lse_core.metrics.functional import equivariance_error, invariance_error
from lse_core.pointwise import PointwiseWarp
from lse_core.separable import SeparableWarp

try:
    from torchmetrics import Metric
except ImportError as error:  # pragma: no cover - exercised by the wheel test
    raise LSEError("the metric classes need torchmetrics: pip install 'lse-core[metrics]'") from error

__all__ = ["EquivarianceError", "InvarianceError"]


class _MeanError(Metric):
    """A sum and a count, both summed over processes: the mean weighs every image the same."""

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, *, per_element: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.per_element = per_element
        # float64: a sum over 50,000 images in float32 would lose the last images
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def _add(self, errors: Tensor) -> None:
        self.total = self.total + errors.sum().to(self.total.dtype)
        self.count = self.count + errors.numel()

    def compute(self) -> Tensor:
        """The mean error over everything seen, a scalar."""
        return (self.total / self.count).float()


class EquivarianceError(_MeanError):
    """EquE (Eq. 23) over a dataset; see `lse_core.equivariance_error` for shapes.

    Args:
        layout: where the pixels are in the outputs.
        per_element: divide each image's error by the number of its elements.
        kwargs: torchmetrics' own.
    """

    def __init__(self, layout: Layout | str = "nchw", *, per_element: bool = False, **kwargs: Any) -> None:
        super().__init__(per_element=per_element, **kwargs)
        self.layout = layout

    def update(self, outputs: Tensor, outputs_scaled: Tensor, warp: SeparableWarp | PointwiseWarp) -> None:
        """Add a batch: M(I), M(S(I; Phi)) and Phi."""
        settings: dict[str, Any] = {"per_element": self.per_element, "reduction": "none"}
        self._add(equivariance_error(outputs, outputs_scaled, warp, self.layout, **settings))


class InvarianceError(_MeanError):
    """InvE (Eq. 24) over a dataset; see `lse_core.invariance_error` for shapes.

    Args:
        per_element: divide each error by the number of output elements.
        kwargs: torchmetrics' own.
    """

    def update(self, outputs: Tensor, outputs_scaled: Tensor) -> None:
        """Add a batch: M(I) and M(I_s), one variant or several an image."""
        self._add(invariance_error(outputs, outputs_scaled, per_element=self.per_element, reduction="none"))
