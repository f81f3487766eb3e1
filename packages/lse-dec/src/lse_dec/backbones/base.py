"""What LSE must know of a backbone: where its stages are, and how a stage's tensors are laid out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import nn
from torch.utils.hooks import RemovableHandle

from lse_core.errors import LSEError, ShapeError, unknown_name
from lse_core.layouts import NCHW, Layout

__all__ = [
    "GENERIC",
    "IMAGE",
    "Backbone",
    "Stage",
    "backbone_of",
    "find_stage",
    "first_convolution",
    "is_a",
    "preceding_channels",
]

GENERIC = "generic"
"""Name of the backbone that takes every model; asked last."""

IMAGE = "image"
"""Name of the site at the input, F_1 = I in Eq. 20."""


@dataclass(frozen=True)
class Stage:
    """A module M_k of Eq. 20 whose input F_k can be canonicalized.

    Attributes:
        name: the module's path in the model, as `nn.Module.get_submodule` takes it; "image" for the input.
        channels: channels of F_k.
        layout: how F_k is laid out.
        output_layout: how the stage's output is laid out (its size may differ).
        size: (height, width) of F_k where the model fixes it, else None.
        watch: for layouts that depend on the image at hand: registers on the model what keeps the layout
            informed, and returns the handle that removes it.
    """

    name: str
    channels: int
    layout: Layout
    output_layout: Layout = field(default_factory=NCHW)
    size: tuple[int, int] | None = None
    watch: Callable[[nn.Module], RemovableHandle] | None = None


@runtime_checkable
class Backbone(Protocol):
    """A family of models. One instance serves every model of the family."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is of this family."""
        ...

    def image(self, model: nn.Module) -> Stage:
        """The input as a stage, named "image"."""
        ...

    def stages(self, model: nn.Module) -> Sequence[Stage]:
        """The latent stages in order of execution."""
        ...


def backbone_of(model: nn.Module) -> Backbone:
    """The registered backbone that matches `model`: other distributions' first, the generic one last.

    Raises:
        LSEError: none matches (which needs the generic one to be blocked).
    """
    from lse_core.plugins import registry

    reg = registry()

    def order(name: str) -> tuple[bool, bool]:
        return name == GENERIC, reg.provider("backbone", name) == "lse-dec"

    names = sorted(reg.names("backbone"), key=order)
    for name in names:
        backbone: Backbone = reg.get("backbone", name)
        if backbone.matches(model):
            return backbone
    raise LSEError(
        f"no backbone plugin knows {type(model).__module__}.{type(model).__qualname__}; known families: "
        f"{', '.join(sorted(names))}. Register one through the hook lse_backbones"
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
    from lse_dec.backbones.probe import probe

    seen = probe(model).get(name)
    if seen is None or seen.stage is None:
        why = "is not called" if seen is None else seen.why
        raise ShapeError(
            f"{name!r} of {type(model).__name__} {why}, so nothing can be warped there; "
            f"stages that take a spatial map: image, {', '.join(stages)}"
        )
    return seen.stage


def is_a(model: nn.Module, *classes: str) -> bool:
    """Whether `model` is of one of the classes, named "module.Class", or a subclass; imports nothing."""
    return any(f"{c.__module__}.{c.__qualname__}" in classes for c in type(model).__mro__)


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """The convolution registered first, in every family known the one that takes the image."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module
    raise LSEError(f"{type(model).__name__} has no convolution that takes an image")


def preceding_channels(model: Any) -> list[int]:
    """Channels that enter each stage, where timm's feature metadata tell what each stage gives.

    For models whose stages change the channels themselves (a downsampling at their beginning); the
    first one keeps those it is given.
    """
    given = [int(info["num_chs"]) for info in model.feature_info]
    return [given[0], *given[:-1]]
