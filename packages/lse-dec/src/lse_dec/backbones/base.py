"""What LSE must know of a backbone: where its stages are, and how their tensors are laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import nn

from lse_core.errors import LSEError
from lse_core.layouts import NCHW, Layout

__all__ = [
    "IMAGE",
    "Backbone",
    "Family",
    "Removable",
    "Stage",
    "first_convolution",
    "is_a",
]

IMAGE = "image"
"""Name of the site at the input, F_1 = I in Eq. 20."""


class Removable(Protocol):
    """What was registered on a model and can be taken away again, such as the handle of a hook."""

    def remove(self) -> None:
        """Take it away."""
        ...


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
        outputs: for stages that give several things at once, the layouts of those that differ from
            `output_layout`: by their key in a mapping, by their place (from 0) in a tuple or list. None says
            that it has no place in the picture (attention weights), so that it is never warped.
    """

    name: str
    channels: int
    layout: Layout
    output_layout: Layout = field(default_factory=NCHW)
    size: tuple[int, int] | None = None
    watch: Callable[[nn.Module], Removable] | None = None
    outputs: Mapping[str | int, Layout | None] = field(default_factory=dict)


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


class Family:
    """A backbone for models of certain classes, which are known by name so that no library is imported.

    Attributes:
        classes: the classes, "module.Class"; subclasses are of the family too.
        layout: how what enters and leaves a stage lies.
        output: how what the whole model gives lies, where it is dense.
    """

    classes: ClassVar[tuple[str, ...]]
    layout: ClassVar[Layout] = NCHW()
    output: ClassVar[Layout] = NCHW()

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is of one of the classes."""
        return is_a(model, *self.classes)

    def image(self, model: Any) -> Stage:
        """The image, as the first convolution takes it."""
        return Stage(IMAGE, first_convolution(model).in_channels, NCHW(), self.output)

    def stages(self, model: Any) -> list[Stage]:
        """The latent stages in order of execution."""
        return [
            Stage(name, self.channels(model.get_submodule(name)), self.layout, self.layout)
            for name in self.names(model)
        ]

    def names(self, model: Any) -> list[str]:
        """Paths of the stages in the model, in order of execution."""
        raise NotImplementedError

    def channels(self, stage: Any) -> int:
        """Channels of what enters a stage; here one that begins with a convolution."""
        return first_convolution(stage).in_channels


def is_a(model: nn.Module, *classes: str) -> bool:
    """Whether `model` is of one of the classes, named "module.Class", or a subclass; imports nothing."""
    return any(f"{c.__module__}.{c.__qualname__}" in classes for c in type(model).__mro__)


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """The convolution registered first, in every family known the one that takes the image."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module
    raise LSEError(f"{type(model).__name__} has no convolution that takes an image")
