"""What LSE must know of a backbone: where its stages are, and how a stage's tensors are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import nn

from lse_core.errors import LSEError, ShapeError, unknown_name
from lse_core.layouts import NCHW, Layout

__all__ = ["IMAGE", "Backbone", "Stage", "backbone_of", "find_stage", "first_convolution"]

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
    """

    name: str
    channels: int
    layout: Layout
    output_layout: Layout = field(default_factory=NCHW)
    size: tuple[int, int] | None = None


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
    """The registered backbone that matches `model`; those of other distributions are asked first.

    Raises:
        LSEError: none matches.
    """
    from lse_core.plugins import registry

    reg = registry()
    names = sorted(reg.names("backbone"), key=lambda n: reg.provider("backbone", n) == "lse-dec")
    for name in names:
        backbone: Backbone = reg.get("backbone", name)
        if backbone.matches(model):
            return backbone
    raise LSEError(
        f"no backbone plugin knows {type(model).__module__}.{type(model).__qualname__}; known families: "
        f"{', '.join(sorted(names))}. Register one through the hook lse_backbones"
    )


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """The convolution registered first, in every family known the one that takes the image."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module
    raise LSEError(f"{type(model).__name__} has no convolution that takes an image")


def find_stage(backbone: Backbone, model: nn.Module, name: str) -> Stage:
    """The stage called `name`.

    Raises:
        UnknownNameError: no module of that name.
        ShapeError: a module of that name exists, but its input is no spatial map.
    """
    if name == IMAGE:
        return backbone.image(model)
    stages = {stage.name: stage for stage in backbone.stages(model)}
    if name in stages:
        return stages[name]
    if name and name in dict(model.named_modules()):
        raise ShapeError(
            f"{name!r} of {type(model).__name__} takes no spatial map, so nothing can be warped there; "
            f"stages that do: image, {', '.join(stages)}"
        )
    raise unknown_name("stage", name, [IMAGE, *stages], "See `lse adapt --list MODEL`.")
