"""timm's BEiT (v1, v2) and EVA: transformers on tokens with positions inside their attention."""

from __future__ import annotations

from torch import nn

from lse_dec.backbones.base import is_a
from lse_dec.backbones.tokens import TokenStages

__all__ = ["BEiT"]


class BEiT(TokenStages):
    """Blocks on tokens; relative or rotary positions reach the block as before."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is timm's Beit or Eva."""
        return is_a(model, "timm.models.beit.Beit", "timm.models.eva.Eva")
