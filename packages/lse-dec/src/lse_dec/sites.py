"""A canonicalizer in its place: before a stage, and after it too where the output is dense.

What a canonicalizer looks at is chosen by `feed`. The paper gives every H_k its F_k ("latent"). The authors'
code gives the image to all of them ("image"), and applies the warp found on it to F_k. Where the image itself
is a site, the others see the canonical image, because F_k was computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import DTypeError, LSEError, ShapeError
from lse_core.layouts import Layout
from lse_core.resample import scale, unscale
from lse_dec.arguments import first_parameter, given_features
from lse_dec.backbones.base import Stage
from lse_dec.canonicalizers.base import Canonicalization
from lse_dec.observation import Entered, Observation

__all__ = ["FEEDS", "MODES", "CanonicalizedStage", "Entrance", "ImageFedStage", "ImageSite"]

MODES = ("invariant", "equivariant")
FEEDS = ("latent", "image")


_entered: ContextVar[Tensor | None] = ContextVar("lse_dec_entered_image", default=None)


class Entrance:
    """Where the image enters one adapted model; shared by the model and its sites.

    The image is kept in a context variable while the model's forward runs. So nothing outlives the call,
    threads see their own image, and no module holds a tensor.
    """

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


class CanonicalizedStage(nn.Module):
    """M~_k of Eq. 21 and 22: the stage on canonicalized features, its output warped back or not.

    Stands where the stage stood in the model; attributes it does not have itself are the stage's.

    Args:
        stage: M_k, any module whose first argument is F_k, given by position or by its name; other
            arguments pass through.
        canonicalizer: H_k.
        where: the stage's name, channels and layouts.
        mode: "invariant" (Eq. 22) or "equivariant" (Eq. 21).
        entrance: where sites that look at the image know it from; None where no site does.

    Attributes:
        observers: called with the `Observation` of every forward pass, see `lse_dec.observe`.
    """

    def __init__(
        self,
        stage: nn.Module,
        canonicalizer: nn.Module,
        where: Stage,
        mode: str,
        entrance: Entrance | None = None,
    ) -> None:
        super().__init__()
        self.stage = stage
        self.canonicalizer = canonicalizer
        self.where = where
        self.mode = mode
        self.entrance = entrance
        self.observers: tuple[Callable[[Observation], None], ...] = ()
        self._entry = first_parameter(stage)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The stage's output for F_k, given first or by the name that the stage's own forward has for it."""
        x, name = self.given(args, kwargs)
        layout = self.where.layout
        spatial, rest = layout.unpack(x)
        found = self.find(spatial, layout.channels_last)
        kind = "nhwc" if layout.channels_last else "nchw"
        canonical = layout.pack(unscale(spatial, found.warp, kind), rest)
        if name is None:
            args = (canonical, *args[1:])
        else:
            kwargs = {**kwargs, name: canonical}
        out = self.run(canonical, args, kwargs)
        return out if self.mode == "invariant" else self._restored(x, canonical, out, found)

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, str | None]:
        """F_k among the arguments of a call, and the keyword it came by; LSEError if it is missing."""
        return given_features(f"the site {self.where.name!r}", self._entry, args, kwargs)

    def find(self, spatial: Tensor, channels_last: bool = False) -> Canonicalization:
        """The canonicalizer's answer for F_k as a map, told to whoever observes the site.

        Args:
            spatial: (B, C, H, W), or (B, H, W, C) if `channels_last`.
            channels_last: where the channels are.
        """
        seen = self.looked_at(spatial, channels_last)
        found: Canonicalization = self.canonicalizer(seen.features, channels_last=seen.channels_last)
        for tell in self.observers:
            tell(Observation(seen, found))
        return found

    def looked_at(self, spatial: Tensor, channels_last: bool) -> Entered:
        """What the canonicalizer gets to see where F_k is `spatial`."""
        return Entered(spatial, channels_last)

    def run(self, canonical: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The stage on canonicalized features, which `args` or `kwargs` hold."""
        return self.stage(*args, **kwargs)

    def _restored(self, x: Tensor, canonical: Tensor, out: Any, found: Canonicalization) -> Any:
        """The output warped back, also inside tuples, lists and dicts of maps."""
        where = self.where

        def restored(value: Any, layout: Layout | None, several: Mapping[str | int, Layout | None]) -> Any:
            if layout is None:
                return value
            if isinstance(value, Tensor):
                # class scores have no place in the picture: nothing to put back
                return value if value.ndim < 3 else _restore(x, canonical, value, found, layout)
            if isinstance(value, Mapping):
                parts = {k: restored(v, several.get(k, layout), {}) for k, v in value.items()}
                # transformers' outputs are dicts and dataclasses in one
                return type(value)(**parts) if is_dataclass(value) else type(value)(parts)  # type: ignore[call-arg]
            if isinstance(value, tuple | list):
                row = [restored(v, several.get(i, layout), {}) for i, v in enumerate(value)]
                return type(value)(*row) if hasattr(value, "_fields") else type(value)(row)
            return value

        return restored(out, where.output_layout, where.outputs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "stage":
                raise
            return getattr(self.stage, name)


def _restore(x: Tensor, canonical: Tensor, out: Tensor, found: Canonicalization, layout: Layout) -> Tensor:
    if out.shape != canonical.shape:
        return scale(out, found.warp, layout)
    # S(M(f)) written as F + S(M(f) - f), f the canonical features: the identity path of a
    # residual stage then keeps F itself instead of F resampled twice
    # (prefix tokens pass scale untouched, so for them this is the stage's own output)
    return x + scale(out - canonical, found.warp, layout)


class ImageFedStage(CanonicalizedStage):
    """A latent stage whose canonicalizer, made for the image's channels, sees the image."""

    def looked_at(self, spatial: Tensor, channels_last: bool) -> Entered:
        """The image that entered the model.

        Raises:
            LSEError: the stage runs outside of the adapted model's forward.
        """
        image = None if self.entrance is None else self.entrance.image
        if image is None:
            raise LSEError(
                f"the site {self.where.name!r} is fed by the image, which is known only while the adapted "
                "model is called: call it as a whole, turn gradient checkpointing off, or use feed='latent'"
            )
        return Entered(image, False)


class ImageSite(CanonicalizedStage):
    """The site at the image, around the whole model: where the caller's tensor enters, and so is checked."""

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, str | None]:
        """The image among the arguments of a call, (B, C, H, W) of a floating dtype, and its keyword.

        Raises:
            LSEError: no image is given.
            ShapeError: not a batch of images with the model's channels.
            DTypeError: images of integers.
        """
        x, name = super().given(args, kwargs)
        channels = self.where.channels
        if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape:
            raise ShapeError(
                f"expected images (batch, {channels}, height, width); got a tensor of shape {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise DTypeError(f"expected floating images, normalised as the model wants them; got {x.dtype}")
        return x, name

    def run(self, canonical: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The model on the canonical image, which sites behind this one may look at."""
        if self.entrance is None:
            return super().run(canonical, args, kwargs)
        token = self.entrance.enter(canonical)
        try:
            return super().run(canonical, args, kwargs)
        finally:
            self.entrance.leave(token)
