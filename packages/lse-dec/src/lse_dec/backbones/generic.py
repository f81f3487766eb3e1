"""Any model: stages by timm's feature metadata, else by a dry run over its named modules."""

from __future__ import annotations

from typing import Any

from torch import nn

from lse_core.layouts import NCHW
from lse_dec.backbones.base import IMAGE, Stage
from lse_dec.backbones.probe import probe

__all__ = ["Generic"]


class Generic:
    """What no family knows: the model is run once on blank images to see who takes a spatial map.

    timm's feature metadata name the modules that end a level of features; where they exist and take
    maps, those are the stages. Otherwise the stages are the modules with parts of their own (and those
    at the top level) that are called once with a map. Any other module that takes a map can still be
    named.
    """

    def matches(self, model: nn.Module) -> bool:
        """Every module."""
        return isinstance(model, nn.Module)

    def image(self, model: nn.Module) -> Stage:
        """The image, and how the model's output lies if it is dense."""
        seen = probe(model)[""]
        layout = seen.stage.output_layout if seen.stage else NCHW()
        return Stage(IMAGE, seen.shape[1], NCHW(), layout)

    def stages(self, model: Any) -> list[Stage]:
        """Stages in order of execution."""
        seen = probe(model)
        found = {name: entry.stage for name, entry in seen.items() if name and entry.stage is not None}
        features = [info.get("module", "") for info in getattr(model, "feature_info", None) or ()]
        named = [stage for name, stage in found.items() if name in features]
        if named:
            return named
        return [stage for name, stage in found.items() if _is_part(name, model.get_submodule(name))]


def _is_part(name: str, module: nn.Module) -> bool:
    return "." not in name or any(True for _ in module.children())
