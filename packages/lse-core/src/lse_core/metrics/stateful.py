"""The metrics as torchmetrics classes: update batch by batch, exact across processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lse_core.errors import LSEError
from lse_core.layouts import Layout
from lse_core.metrics.accuracy import ScaleAccuracy, count_per_scale, summarize
from lse_core.metrics.authors import authors_error
from lse_core.metrics.canonical import canonicalizer_equivariance_error, fixed_point_residual
from lse_core.metrics.functional import equivariance_error, invariance_error
from lse_core.metrics.soft import soft_equivariance_error
from lse_core.pointwise import PointwiseWarp
from lse_core.separable import SeparableWarp

try:
    from torchmetrics import Metric
except ImportError as error:  # pragma: no cover - exercised by the wheel test
    raise LSEError("the metric classes need torchmetrics: pip install 'lse-core[metrics]'") from error

__all__ = [
    "AccuracyPerScale",
    "AuthorsError",
    "CanonicalizerEquivarianceError",
    "EquivarianceError",
    "FixedPointResidual",
    "InvarianceError",
    "SoftEquivarianceError",
]


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
        self._add(
            equivariance_error(
                outputs,
                outputs_scaled,
                warp,
                self.layout,
                per_element=self.per_element,
                reduction="none",
            )
        )


class InvarianceError(_MeanError):
    """InvE (Eq. 24) over a dataset; see `lse_core.invariance_error` for shapes.

    Args:
        per_element: divide each error by the number of output elements.
        kwargs: torchmetrics' own.
    """

    def update(self, outputs: Tensor, outputs_scaled: Tensor) -> None:
        """Add a batch: M(I) and M(I_s), one variant or several an image."""
        self._add(invariance_error(outputs, outputs_scaled, per_element=self.per_element, reduction="none"))


class FixedPointResidual(_MeanError):
    """Mean residual of a fixed-point solve (Eq. 15); see `fixed_point_residual`.

    Args:
        relative: divide each residual by the size of the updated state.
        kwargs: torchmetrics' own.
    """

    def __init__(self, *, relative: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.relative = relative

    def update(self, state: Tensor, updated: Tensor) -> None:
        """Add a batch: z and H(z)."""
        self._add(fixed_point_residual(state, updated, relative=self.relative))


class CanonicalizerEquivarianceError(_MeanError):
    """Mean distance between h(S(F; g)) and g h(F), Eq. 5; see `canonicalizer_equivariance_error`.

    Args:
        kind: the distance.
        kwargs: torchmetrics' own.
    """

    def __init__(self, kind: str = "max", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def update(self, of_input: SeparableWarp, of_scaled: SeparableWarp, g: SeparableWarp) -> None:
        """Add a batch: h(F), h(S(F; g)) and g."""
        self._add(canonicalizer_equivariance_error(of_input, of_scaled, g, self.kind))


class SoftEquivarianceError(_MeanError):
    """Mean relative soft-equivariance error; see `soft_equivariance_error`.

    Args:
        options: `invariant`, the layouts, `probes` and `generator` of the function.
        kwargs: torchmetrics' own.
    """

    is_differentiable = False

    def __init__(self, options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.options = dict(options or {})

    def update(self, model: Callable[[Tensor], Tensor], x: Tensor, warp: SeparableWarp) -> None:
        """Add a batch: the model, its input and the warp."""
        self._add(soft_equivariance_error(model, x, warp, **self.options))


class AuthorsError(_MeanError):
    """An error as the authors' code computes it, over a dataset; see `authors_error`.

    Args:
        variant: "norm", "relative" or "norm_with_reference".
        kwargs: torchmetrics' own.
    """

    def __init__(self, variant: str = "norm", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.variant = variant

    def update(
        self, logits: Tensor, logits_scaled: Tensor, warp: SeparableWarp | PointwiseWarp | None = None
    ) -> None:
        """Add a batch: logits of images and of scaled images, and for segmentation the warp."""
        self._add(authors_error(logits, logits_scaled, self.variant, warp=warp, reduction="none"))


class AccuracyPerScale(Metric):
    """Accuracy by scale bracket over a dataset (Tables 3 and 6); see `accuracy_per_scale`.

    Args:
        brackets: ranges (low, high) of scale.
        kwargs: torchmetrics' own.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    right: Tensor
    count: Tensor

    def __init__(self, brackets: Sequence[tuple[float, float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.brackets = tuple(brackets)
        for name in ("right", "count"):
            self.add_state(name, torch.zeros(len(self.brackets), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor, scales: Tensor) -> None:
        """Add a batch: scores or classes, the true classes, and the scale of each sample."""
        right, count = count_per_scale(predictions, targets, scales, self.brackets)
        self.right = self.right + right
        self.count = self.count + count

    def compute(self) -> ScaleAccuracy:
        """Accuracies, their mean over brackets and their standard deviation."""
        return summarize(self.right, self.count, self.brackets)
