"""Consistency under local scaling as pure functions of outputs: Eq. 23 and 24."""

from __future__ import annotations

from torch import Tensor

from lse_core.errors import DTypeError, ShapeError, unknown_name
from lse_core.layouts import Layout
from lse_core.pointwise import PointwiseWarp
from lse_core.resample import scale
from lse_core.separable import SeparableWarp

__all__ = ["equivariance_error", "invariance_error"]

REDUCTIONS = ("mean", "none")


def equivariance_error(
    outputs: Tensor,
    outputs_scaled: Tensor,
    warp: SeparableWarp | PointwiseWarp,
    layout: Layout | str = "nchw",
    *,
    per_element: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """EquE, Eq. 23: mean over images of ||S(M(I); Phi) - M(S(I; Phi))||^2 (squared L2).

    Zero for an equivariant model. Differentiable through both outputs and the warp, so it serves as
    a loss (AugL) as well.

    Args:
        outputs: M(I), (N, C, H, W) or as `layout` says.
        outputs_scaled: M(S(I; Phi)), the same shape.
        warp: the Phi the images were scaled with, batch N (or one for all).
        layout: where the pixels are, as in `lse_core.scale`.
        per_element: divide each image's error by the number of its elements, which makes outputs of
            different sizes comparable; Eq. 23 itself does not.
        reduction: "mean" over images, or "none".

    Returns:
        A scalar, or (N,) with reduction "none"; at least 0.

    Raises:
        ShapeError: the two outputs differ in shape.
    """
    if outputs.shape != outputs_scaled.shape:
        raise ShapeError(
            f"outputs {tuple(outputs.shape)} and outputs of the scaled images "
            f"{tuple(outputs_scaled.shape)} differ in shape"
        )
    return _reduce(scale(outputs, warp, layout) - outputs_scaled, 1, per_element, reduction)


def invariance_error(
    outputs: Tensor,
    outputs_scaled: Tensor,
    *,
    per_element: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """InvE, Eq. 24: mean over images and their variants of ||M(I) - M(I_s)||^2 (squared L2).

    Zero for an invariant model. Differentiable, so it serves as the loss of Eq. 25 (InvL) as well.

    Args:
        outputs: M(I), (N, ...): for classifiers the softmax, (N, classes).
        outputs_scaled: M(I_s), (N, ...) for one variant an image or (N, V, ...) for V of them.
        per_element: divide by the number of output elements; Eq. 24 itself does not.
        reduction: "mean" over images and variants, or "none".

    Returns:
        A scalar, or with reduction "none" (N,) or (N, V).

    Raises:
        ShapeError: the two outputs do not fit each other.
        DTypeError: outputs that are no floating numbers.
    """
    if outputs_scaled.shape == outputs.shape:
        return _reduce(outputs - outputs_scaled, 1, per_element, reduction)
    if outputs_scaled.shape[:1] + outputs_scaled.shape[2:] == outputs.shape:
        return _reduce(outputs.unsqueeze(1) - outputs_scaled, 2, per_element, reduction)
    raise ShapeError(
        f"outputs {tuple(outputs.shape)} need variants of the same shape, or with one more axis "
        f"after the batch; got {tuple(outputs_scaled.shape)}"
    )


def _reduce(difference: Tensor, kept: int, per_element: bool, reduction: str) -> Tensor:
    if reduction not in REDUCTIONS:
        raise unknown_name("reduction", reduction, REDUCTIONS)
    if not (difference.is_floating_point() or difference.is_complex()):
        raise DTypeError(
            f"outputs to compare must be floating numbers, such as probabilities; got {difference.dtype}"
        )
    if difference.ndim <= kept or difference.numel() == 0:
        raise ShapeError(
            f"outputs of shape {tuple(difference.shape)} are empty, so there is nothing to compare"
        )
    flat = difference.flatten(kept).square()
    error = flat.mean(-1) if per_element else flat.sum(-1)
    return error.mean() if reduction == "mean" else error
