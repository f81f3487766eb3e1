"""A backbone of mmsegmentation with canonicalizers at chosen stages, built from a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

import lse_dec

__all__ = ["CanonicalizedBackbone"]


@MODELS.register_module()
class CanonicalizedBackbone(BaseModule):
    """Any registered backbone, timm's through `TIMMBackbone` too, adapted by `lse_dec.adapt`.

    Takes the place of the backbone in a config; decode heads, necks and auxiliary heads see levels of
    the same shapes. Fresh canonicalizers answer with the identity. A checkpoint of the bare backbone
    loads into it, the canonicalizers staying as they are.

    Args:
        backbone: config of the backbone.
        sites: names of stages, "image" being the input; None means the image and the first stage.
        mode: "equivariant" (Eq. 21): each site's warp is undone on what its stage gives, on every level
            at that level's resolution; "invariant" (Eq. 22) leaves the levels in the canonical frame.
        init_cfg: as any mmengine module takes it; for pretrained weights use that of `backbone`.
        settings: canonicalizer, rule, solver, steps and further settings, see `lse_dec.adapt`.

    Raises:
        LSEError: what `lse_dec.adapt` raises: unknown names, stages that take no map, bad settings.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        sites: Sequence[str] | str | None = None,
        mode: str = "equivariant",
        init_cfg: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(init_cfg)
        self.adapted = lse_dec.adapt(MODELS.build(backbone), sites, mode=mode, **settings)
        self._names = self._names_of_base()
        self.register_load_state_dict_pre_hook(self._adopt)

    def forward(self, x: Tensor) -> Any:
        """Return the feature maps of images (B, C, H, W), as the backbone returns them."""
        return self.adapted(x)

    def init_weights(self) -> None:
        """Initialise the backbone in its own way; canonicalizers keep answering with the identity."""
        # a backbone initialises all its Linear layers, and the canonicalizers' would be among them
        with self.adapted.without_sites() as base:
            cast(Any, base).init_weights()
        self._is_init = True

    def _names_of_base(self) -> dict[str, str]:
        """Names of the backbone's own state to those here."""
        here = {id(tensor): name for name, tensor in self.state_dict(keep_vars=True).items()}
        with self.adapted.without_sites() as base:
            return {name: here[id(tensor)] for name, tensor in base.state_dict(keep_vars=True).items()}

    def _adopt(self, module: Any, state: dict[str, Any], prefix: str, *args: Any) -> None:
        """Rename the entries of a checkpoint of the bare backbone."""
        if any(name.startswith(f"{prefix}adapted.") for name in state):
            return
        for bare, name in self._names.items():
            if prefix + bare in state:
                state[prefix + name] = state.pop(prefix + bare)
