"""A segmentor that works on the canonical form of the image and gives its logits in place with the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.utils import add_prefix
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_core.resample import scale, unscale
from lse_core.separable import SeparableWarp
from lse_core.settings import build
from lse_dec import adapt, observe
from lse_dec.backbones import IMAGE
from lse_dec.sites import CanonicalizedStage
from lse_seg.backbone import CanonicalizedBackbone
from lse_seg.canonicalizer_loss import CanonicalizerLoss

__all__ = ["CanonicalizedSegmentor"]


@MODELS.register_module()
class CanonicalizedSegmentor(EncoderDecoder):
    """mmsegmentation's `EncoderDecoder` around a canonicalizer: M~(I) = S(M(S^-1(I; Phi)); Phi), Eq. 6.

    All of `EncoderDecoder` works as before: necks, auxiliary heads, sliding windows (each window has its
    own canonical form) and test-time augmentation. Logits are put back at the image's size, in training
    too, so the loss compares them with the labels as they are. Warping labels into the canonical frame
    instead would give the warp no gradient from them, and would let it lower the loss by shrinking what
    is hard. Where the backbone is a `CanonicalizedBackbone`, its canonicalizers are trained and logged too.

    Args:
        backbone: config of the backbone, as `EncoderDecoder` takes it.
        decode_head: config of the decode head.
        canonicalizer: settings of `lse_dec.adapt` for the image, such as dict(canonicalizer="dec",
            steps=5), or a name; None leaves the image as it is.
        canonicalizer_loss: settings of `CanonicalizerLoss`, Eq. 5 for all canonicalizers; None trains
            them by the task loss alone.
        kwargs: the other arguments of `EncoderDecoder`.

    Raises:
        LSEError: a decode head that computes its loss or prediction without logits (MaskFormer,
            Mask2Former, SAN, cascades): canonicalize their backbone instead; and what `lse_dec.adapt` raises.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        canonicalizer: Mapping[str, Any] | str | None = "dec",
        canonicalizer_loss: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, decode_head, **kwargs)
        self.frame: Any = None
        if canonicalizer is not None:
            settings = {"canonicalizer": canonicalizer} if isinstance(canonicalizer, str) else canonicalizer
            # the image site of a model that does nothing: its output is the canonical image
            self.frame = adapt(nn.Identity(), IMAGE, **settings)
            for head in self._heads().values():
                _check(head)
        given = {"weight": 0.0} if canonicalizer_loss is None else canonicalizer_loss
        self.canonicalizer_loss = build(CanonicalizerLoss, **given)

    @property
    def sites(self) -> dict[str, CanonicalizedStage]:
        """All canonicalized stages: "image" here, "backbone.NAME" those of a `CanonicalizedBackbone`."""
        own = {} if self.frame is None else self.frame.sites
        inner = self.backbone.adapted.sites if isinstance(self.backbone, CanonicalizedBackbone) else {}
        return {**own, **{f"backbone.{name}": site for name, site in inner.items()}}

    def canonicalize(self, inputs: Tensor) -> tuple[Tensor, SeparableWarp | None]:
        """Canonical images (B, C, H, W) and the warp that puts things back; None where there is none."""
        if self.frame is None:
            return inputs, None
        warp = self.frame.sites[IMAGE].find(inputs).warp
        return unscale(inputs, warp), warp

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Logits (B, classes, H, W) in place with `inputs` (B, C, H, W)."""
        canonical, warp = self.canonicalize(inputs)
        logits = super().encode_decode(canonical, batch_img_metas)
        return logits if warp is None else scale(logits, warp)

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Any:
        canonical, warp = self.canonicalize(inputs)
        out = super()._forward(canonical, data_samples)
        return out if warp is None else _maps(out, lambda logits: scale(logits, warp))

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of all heads by name, and those of the canonicalizers.

        Args:
            inputs: images (B, C, H, W), normalised.
            data_samples: mmsegmentation's samples with `gt_sem_seg`.
        """
        losses: dict[str, Tensor] = {}
        sites = self.sites
        with observe(sites, first=True) as seen:
            canonical, warp = self.canonicalize(inputs)
            features = self.extract_feat(canonical)
            for name, head in self._heads().items():
                found = (
                    head.loss(features, data_samples, self.train_cfg)
                    if warp is None
                    else _restored_loss(head, features, data_samples, warp)
                )
                losses.update(add_prefix(found, name))
        losses.update(self.canonicalizer_loss(sites, seen))
        return losses

    def _heads(self) -> dict[str, Any]:
        """Decode head and auxiliary heads by the prefixes under which mmsegmentation logs them."""
        heads = {"decode": self.decode_head}
        if self.with_auxiliary_head:
            several = isinstance(self.auxiliary_head, nn.ModuleList)
            auxiliary = list(self.auxiliary_head) if several else [self.auxiliary_head]
            heads.update({f"aux_{i}" if several else "aux": head for i, head in enumerate(auxiliary)})
        return heads


def _check(head: nn.Module) -> None:
    if not isinstance(head, BaseDecodeHead) or type(head).loss is not BaseDecodeHead.loss:
        raise LSEError(
            f"{type(head).__name__} computes its loss without logits that could be put back; leave the "
            "segmentor as it is and make its backbone a CanonicalizedBackbone"
        )


def _restored_loss(head: Any, features: Any, data_samples: list, warp: SeparableWarp) -> dict[str, Tensor]:
    """The head's loss on logits put back at the size of the labels, as prediction does it."""
    size = data_samples[0].gt_sem_seg.shape[-2:]

    def restore(logits: Tensor) -> Tensor:
        full = resize(logits, size=size, mode="bilinear", align_corners=head.align_corners)
        return scale(full, warp)

    return head.loss_by_feat(_maps(head.forward(features), restore), data_samples)


def _maps(out: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`out` with every map (B, C, H, W) in it changed; other tensors, such as class scores, as they are."""
    if isinstance(out, Tensor):
        return change(out) if out.ndim == 4 else out
    if isinstance(out, list | tuple):
        return type(out)(_maps(part, change) for part in out)
    return out
