"""The backbone of a model, a stage by its name, and the backbone for models of no known family."""

from __future__ import annotations

from typing import Any

from torch import nn

from lse_core.backbones import find_backbone
from lse_core.errors import LSEError, ShapeError, unknown_name
from lse_core.layouts import NCHW
from lse_core.plugins import registry
from lse_dec.backbones.base import IMAGE, Backbone, Stage
from lse_dec.backbones.probe import probe

__all__ = ["Generic", "backbone_of", "find_stage"]


def backbone_of(model: nn.Module) -> Backbone:
    """The registered backbone that matches `model`: other distributions' first, the generic one last.

    Raises:
        LSEError: none matches (which needs the generic one to be blocked).
    """
    found: Backbone | None = find_backbone(model)
    if found is not None:
        return found
    raise LSEError(
        f"no installed backbone plugin supports "
        f"{type(model).__module__}.{type(model).__qualname__}: register one through "
        f"the hook lse_backbones. Known are {', '.join(registry().names('backbone'))}"
    )


def find_stage(backbone: Backbone, model: nn.Module, name: str) -> Stage:
    """The stage called `name`: one the backbone lists, or any module that a dry run shows to take a map.

    Raises:
        UnknownNameError: no module of that name.
        ShapeError: a module of that name exists, but its input is no spatial map.
    """
    if name == IMAGE:
        return backbone.image(model)
    stages = {stage.name: stage for stage in backbone.stages(model)}
    if name in stages:
        return stages[name]
    if not name or name not in dict(model.named_modules()):
        raise unknown_name("stage", name, [IMAGE, *stages], "See `lse adapt --list MODEL`.")
    seen = probe(model).get(name)
    if seen is None or seen.stage is None:
        why = "is not called" if seen is None else seen.why
        raise ShapeError(
            f"{name!r} of {type(model).__name__} {why}, so it cannot be a site; "
            f"stages that take a spatial map: image, {', '.join(stages)}"
        )
    return seen.stage


class Generic:
    """For models of no known family: one run on blank images shows which modules take a spatial map.

    timm's feature metadata name the modules that end a level of features. Where they exist and take maps,
    those are the stages. Otherwise the stages are the modules with parts of their own, and those at the top
    level, that are called once with a map. Any other module that takes a map can be named as a site too.
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
