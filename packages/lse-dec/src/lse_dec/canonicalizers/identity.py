"""The canonicalizer that leaves everything as it is: a control."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization, channels_first

__all__ = ["Identity"]


class Identity(nn.Module):
    """Always answers with the identity warp.

    Args:
        channels: channels of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor, *, channels_last: bool = False) -> Canonicalization:
        """The identity for a batch of maps; ShapeError for a wrong rank or channels."""
        x = channels_first(features, self.channels, channels_last, "identity")
        precise = torch.promote_types(x.dtype, torch.float32)
        return Canonicalization(SeparableWarp.identity(x.shape[0], device=x.device, dtype=precise))
