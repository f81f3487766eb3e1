"""What a canonicalizer looks at: the stage's own features, or the image that entered the model.

The paper feeds every H_k its F_k ("latent"). The authors' code feeds them all the image ("image"): the warp
found on it is applied to F_k. Where the image itself is canonicalized first, they see the canonicalized one,
which is what F_k was computed from.

The image reaches the sites through a context variable that is set while the model's forward runs, so nothing
outlives the call, threads do not meet, and modules hold no tensors.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_dec.backbones.base import Stage
from lse_dec.canonicalizers.base import Canonicalization
from lse_dec.sites import CanonicalizedStage

__all__ = ["FEEDS", "Entrance", "ImageFedStage"]

FEEDS = ("latent", "image")

_entered: ContextVar[Tensor | None] = ContextVar("lse_dec_entered_image", default=None)


class Entrance:
    """Where the image enters one adapted model; shared by the model and its sites."""

    def __init__(self) -> None:
        # torch.compile cannot trace context variables, but traces attributes away: it is None at run time
        self._traced: Tensor | None = None

    def enter(self, image: Tensor) -> Token[Tensor | None] | Tensor | None:
        """Make `image` known until `leave` is called with what this returns."""
        if torch.compiler.is_dynamo_compiling():
            before, self._traced = self._traced, image
            return before
        return _entered.set(image)

    def leave(self, token: Token[Tensor | None] | Tensor | None) -> None:
        """Forget what `enter` made known."""
        if isinstance(token, Token):
            _entered.reset(token)
        else:
            self._traced = token

    @property
    def image(self) -> Tensor | None:
        """The image that entered, None outside of a forward pass."""
        return self._traced if torch.compiler.is_dynamo_compiling() else _entered.get()


class ImageFedStage(CanonicalizedStage):
    """A latent stage whose canonicalizer sees the image.

    Args:
        stage, canonicalizer, where, mode: as `CanonicalizedStage`; the canonicalizer is made for the image's
            channels.
        entrance: where the image is known from.
    """

    def __init__(
        self, stage: nn.Module, canonicalizer: nn.Module, where: Stage, mode: str, entrance: Entrance
    ) -> None:
        super().__init__(stage, canonicalizer, where, mode)
        self.entrance = entrance

    def find(self, spatial: Tensor, channels_last: bool) -> Canonicalization:
        """The canonicalizer's answer for the image.

        Raises:
            LSEError: the stage runs outside of the adapted model's forward.
        """
        image: Any = self.entrance.image
        if image is None:
            raise LSEError(
                f"the site {self.where.name!r} is fed by the image, which is known only while the adapted "
                "model is called: call it as a whole, turn gradient checkpointing off, or use feed='latent'"
            )
        return self.canonicalizer(image, channels_last=False)
