"""A canonicalizer in its place: before a stage, and after it too where the output is dense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

from lse_core.layouts import Layout
from lse_core.resample import scale, unscale
from lse_dec.arguments import first_parameter, given_features
from lse_dec.backbones.base import Stage
from lse_dec.canonicalizers.base import Canonicalization

__all__ = ["MODES", "CanonicalizedStage"]

MODES = ("invariant", "equivariant")


class CanonicalizedStage(nn.Module):
    """M~_k of Eq. 21 and 22: the stage on canonicalized features, its output warped back or not.

    Stands where the stage stood in the model; attributes it does not have itself are the stage's.

    Args:
        stage: M_k, any module whose first argument is F_k, given by position or by its name; other
            arguments pass through.
        canonicalizer: H_k.
        where: the stage's name, channels and layouts.
        mode: "invariant" (Eq. 22) or "equivariant" (Eq. 21).
    """

    def __init__(self, stage: nn.Module, canonicalizer: nn.Module, where: Stage, mode: str) -> None:
        super().__init__()
        self.stage = stage
        self.canonicalizer = canonicalizer
        self.where = where
        self.mode = mode
        self.observer: dict[str, Canonicalization] | None = None
        self._entry = first_parameter(stage)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The stage's output for F_k, given first or by the name that the stage's own forward has for it."""
        x, name = self.given(args, kwargs)
        layout = self.where.layout
        spatial, rest = layout.unpack(x)
        found = self.find(spatial, layout.channels_last)
        if self.observer is not None:
            self.observer[self.where.name] = found
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

    def find(self, spatial: Tensor, channels_last: bool) -> Canonicalization:
        """The canonicalizer's answer for F_k as a map."""
        return self.canonicalizer(spatial, channels_last=channels_last)

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
