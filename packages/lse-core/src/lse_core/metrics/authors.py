"""The error measures of the authors' published code, for comparison with numbers made by it.

None of them is Eq. 23 or 24, which are squared; read in the code's state of 2025. All of them apply a
softmax over classes first.
"""

from __future__ import annotations

from torch import Tensor

from lse_core.errors import ShapeError, unknown_name
from lse_core.pointwise import PointwiseWarp
from lse_core.resample import scale
from lse_core.separable import SeparableWarp

__all__ = ["AUTHORS_VARIANTS", "authors_error"]

AUTHORS_VARIANTS = ("norm", "relative", "norm_with_reference")


def authors_error(
    logits: Tensor,
    logits_scaled: Tensor,
    variant: str = "norm",
    *,
    warp: SeparableWarp | PointwiseWarp | None = None,
    reduction: str = "mean",
) -> Tensor:
    """An invariance or equivariance error as the authors' code computes it.

    With p = softmax(logits):

    - "norm": ||p - p_s||, not squared, under random warps. With a `warp`, for segmentation: the logits
      are warped before the softmax, and the sum of squares is divided by the number of pixels before
      the root.
    - "relative": ||p - p_s|| / ||p||, for digits resized one by one.
    - "norm_with_reference": the mean of ||p - p_s|| over all variants of an image, for the ImageNet
      test, where the reference is counted as a variant of its own with an error of 0: with V other
      variants the mean is V/(V+1) of the plain one.

    Args:
        logits: M(I), (N, classes), or (N, classes, H, W) with a warp.
        logits_scaled: the same of the scaled images; for "norm_with_reference" (N, V, classes).
        variant: one of the above.
        warp: what the images were scaled with by `lse_core.scale`; "norm" only. The authors' `deform`
            is `lse_core.unscale`, so their grid is the inverse of this warp.
        reduction: "mean" over images, or "none": (N,).
    """
    if variant not in AUTHORS_VARIANTS:
        raise unknown_name("variant", variant, AUTHORS_VARIANTS)
    if reduction not in ("mean", "none"):
        raise unknown_name("reduction", reduction, ("mean", "none"))
    if warp is not None and variant != "norm":
        raise ShapeError(f"variant {variant!r} is of classifiers and takes no warp")
    with_reference = variant == "norm_with_reference"
    expected = (
        (logits.shape[0], logits_scaled.shape[1], *logits.shape[1:]) if with_reference else logits.shape
    )
    if logits_scaled.shape != expected or logits.ndim != (2 if warp is None else 4):
        raise ShapeError(
            f"logits {tuple(logits.shape)} and those of the scaled images {tuple(logits_scaled.shape)} "
            f"do not fit variant {variant!r}{' with a warp' if warp is not None else ''}"
        )
    if warp is not None:
        difference = scale(logits, warp).softmax(1) - logits_scaled.softmax(1)
        error = difference.square().flatten(2).mean(2).sum(1).sqrt()
    elif with_reference:
        p, p_s = logits.softmax(-1), logits_scaled.softmax(-1)
        distances = (p.unsqueeze(1) - p_s).norm(dim=-1)
        error = distances.sum(1) / (distances.shape[1] + 1)
    else:
        p, p_s = logits.softmax(-1), logits_scaled.softmax(-1)
        error = (p - p_s).norm(dim=-1)
        if variant == "relative":
            error = error / p.norm(dim=-1)
    return error.mean() if reduction == "mean" else error
