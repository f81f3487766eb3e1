"""EquE (Eq. 23) as a training loss: the baseline AugL of section 5.1, for any segmentor of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from lse_core.errors import LSEError, unknown_name
from lse_core.metrics import equivariance_error
from lse_core.resample import scale
from lse_core.settings import build
from lse_seg.metrics import OUTPUTS, as_output
from lse_seg.random_warps import RandomWarps
from lse_seg.segmentor import CanonicalizedSegmentor

__all__ = ["ConsistentSegmentor", "EquivarianceLoss"]


class EquivarianceLoss:
    """||S(M(I); Phi) - M(S(I; Phi))||^2 for random warps Phi; gradients flow through both branches.

    Both branches are one forward pass of twice the batch, so that batch statistics see both. Dropout
    draws anew for each, which adds noise that no training removes: set the head's dropout_ratio to 0.

    Args:
        weight: factor of the loss, above 0.
        output: what M is, "softmax" or "logits"; see the metric `EquivarianceError`.
        per_element: divide by the number of elements; with False the sum of Eq. 23.
        settings: of `RandomWarps`; "separable" warps are drawn from the "uniform" distribution unless it
            says otherwise.

    Raises:
        LSEError: a setting that does not exist or is out of its range.
    """

    def __init__(
        self, weight: float = 1.0, output: str = "softmax", per_element: bool = True, **settings: Any
    ) -> None:
        if not weight > 0:
            raise LSEError(f"equivariance_loss: weight must be above 0, not {weight}")
        if output not in OUTPUTS:
            raise unknown_name("output", output, OUTPUTS)
        if settings.get("warp", "separable") == "separable":
            settings.setdefault("distribution", "uniform")
        self.weight, self.output, self.per_element = weight, output, per_element
        self.warps = RandomWarps(**settings)

    def __call__(self, model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The weighted loss of a batch, a scalar.

        Args:
            model: M, gives logits (B, classes, H, W) for images (B, C, H, W).
            images: (B, C, H, W), floating, as the model takes them.
        """
        dtype = torch.promote_types(images.dtype, torch.float32)
        warps = self.warps.draw(len(images), device=images.device, dtype=dtype)
        both = as_output(model(torch.cat([images, scale(images, warps)])), self.output, dim=1)
        plain, moved = both.chunk(2)
        return self.weight * equivariance_error(plain, moved, warps, per_element=self.per_element)


@MODELS.register_module()
class ConsistentSegmentor(CanonicalizedSegmentor):
    """A segmentor that is also trained on EquE: `loss_equivariance` beside the losses it has (AugL).

    Without a canonicalizer, as is the default, it is mmsegmentation's `EncoderDecoder` with that loss and
    with the names of its parameters, so checkpoints of one load into the other. With canonicalizers EquE
    trains them too.

    Args:
        backbone: config of the backbone.
        decode_head: config of the decode head; it must predict logits.
        equivariance_loss: settings of `EquivarianceLoss`, such as dict(weight=1.0, ratio=2.0).
        canonicalizer: as in `CanonicalizedSegmentor`, but None by default.
        kwargs: the other arguments of `CanonicalizedSegmentor`.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        equivariance_loss: Mapping[str, Any] | None = None,
        canonicalizer: Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, decode_head, canonicalizer, **kwargs)
        self.equivariance_loss = build(EquivarianceLoss, **(equivariance_loss or {}))

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The losses by name, `loss_equivariance` among them.

        Args:
            inputs: images (B, C, H, W), normalised.
            data_samples: mmsegmentation's samples with `gt_sem_seg`.
        """
        losses = super().loss(inputs, data_samples)
        losses["loss_equivariance"] = self.equivariance_loss(self._logits, inputs)
        return losses

    def _logits(self, images: Tensor) -> Tensor:
        """Logits at the size of the images, as prediction gives them, with gradients."""
        size = images.shape[2:]
        return self.encode_decode(images, [{"img_shape": size, "pad_shape": size}] * len(images))
