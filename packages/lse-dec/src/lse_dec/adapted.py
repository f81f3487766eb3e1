"""The adapted model: a model with canonicalizers before some of its stages, and the way to put them there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from lse_dec.arguments import first_parameter, given_features
from lse_dec.backbones.base import IMAGE, Removable
from lse_dec.hub import HubModel
from lse_dec.sites import CanonicalizedStage, Entrance

__all__ = ["AdaptedModel", "get_stage", "put_stage", "remove_site", "without_gradient"]


class AdaptedModel(HubModel, nn.Module):
    """A model with canonicalizers before some of its stages: M~ of section 4.3.

    An ordinary module, whose `train`, `eval`, `state_dict` and `to` reach everything in it. `adapt` makes it
    and `unadapt` gives the model back. Attributes that it does not have itself are the model's.
    `push_to_hub` and `from_pretrained` share it on the Hugging Face Hub.

    Attributes:
        model: the adapted model; its canonicalized stages are `CanonicalizedStage`s.
        mode: "invariant" or "equivariant".
        settings: the keywords of `adapt` and their values, names of plugins as names.
    """

    def __init__(self, model: nn.Module, mode: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.mode = mode
        self.settings = dict(settings)
        self.entrance: Entrance | None = None
        self._entry = first_parameter(model)
        self.names: list[str] = []
        self.handles: list[Removable] = []

    @property
    def sites(self) -> dict[str, CanonicalizedStage]:
        """Canonicalized stages by name, in the order they were asked for."""
        return {name: get_stage(self.model, name) for name in self.names}

    @property
    def canonicalizers(self) -> dict[str, nn.Module]:
        """Canonicalizers by the name of their stage."""
        return {name: site.canonicalizer for name, site in self.sites.items()}

    @property
    def base(self) -> nn.Module:
        """The model behind the image's canonicalizer."""
        return _behind(self.model)

    @contextmanager
    def without_sites(self) -> Iterator[nn.Module]:
        """The base model as it was before `adapt`, while the block runs."""
        sites, base = self.sites, self.base
        for name in sites:
            remove_site(base, name)
        try:
            yield base
        finally:
            for name, site in sites.items():
                if name != IMAGE:
                    put_stage(base, name, site)

    @contextmanager
    def canonicalizers_held(self) -> Iterator[None]:
        """No gradient for the canonicalizers' parameters from what is computed in the block.

        For the loss of a task, where canonicalizers are to learn from `lse_dec.equivariance_loss` alone.
        Gradients still pass through the canonicalizers to what is before them.
        """
        with without_gradient(self.canonicalizer_parameters()):
            yield

    def canonicalizer_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the canonicalizers alone, for an optimiser group of their own."""
        for canonicalizer in self.canonicalizers.values():
            yield from canonicalizer.parameters()

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of everything else."""
        mine = {id(p) for p in self.canonicalizer_parameters()}
        return (p for p in self.parameters() if id(p) not in mine)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward, on canonicalized features.

        The image is the first argument, or has the name that the model's own forward gives it:
        `adapted(pixel_values=images)` where the model says `forward(self, pixel_values, ...)`.

        Raises:
            LSEError: a canonicalizer needs the image, and the call has none.
            ShapeError, DTypeError: with a site at the image, what is no batch of floating images.
        """
        if self.entrance is None:
            return self.model(*args, **kwargs)
        token = self.entrance.enter(given_features("the adapted model", self._entry, args, kwargs)[0])
        try:
            return self.model(*args, **kwargs)
        finally:
            self.entrance.leave(token)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(self.model, name)


@contextmanager
def without_gradient(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """No gradient for these parameters from what is computed in the block."""
    wanted = [p for p in parameters if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def get_stage(root: nn.Module, name: str) -> Any:
    """The module at the stage `name`: the site if there is one."""
    if name == IMAGE:
        return root
    parent, child = _parent(root, name)
    return getattr(parent, child)


def put_stage(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the stage `name` is."""
    parent, child = _parent(root, name)
    # setattr on containers such as Sequential takes their string indices too
    setattr(parent, child, module)


def remove_site(root: nn.Module, name: str) -> None:
    """Put the stage back in the place of its site; the image's site, which wraps the model, stays."""
    if name != IMAGE:
        put_stage(root, name, get_stage(root, name).stage)


def _parent(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds the stage `name`; names are those of the base, so sites are looked through."""
    *path, child = name.split(".")
    module = _behind(root)
    for part in path:
        module = _behind(getattr(module, part))
    return module, child


def _behind(module: nn.Module) -> nn.Module:
    return module.stage if isinstance(module, CanonicalizedStage) else module
