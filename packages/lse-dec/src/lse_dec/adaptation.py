"""Adapting a model: canonicalizers at chosen stages, put in and taken out again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from lse_core.errors import LSEError, UnknownNameError, unknown_name
from lse_core.plugins import registry
from lse_core.settings import build, takes
from lse_dec.arguments import first_parameter, given_features
from lse_dec.backbones import IMAGE, Stage, backbone_of, find_stage
from lse_dec.backbones.base import Removable
from lse_dec.hub import HubModel
from lse_dec.observation import observe
from lse_dec.sites import FEEDS, MODES, CanonicalizedStage, Entrance, ImageFedStage, ImageSite

__all__ = ["AdaptedModel", "adapt", "observe", "unadapt", "without_gradient"]


_ITERATION = {"rule": "residual", "solver": "anderson", "steps": 5}
"""Defaults of `adapt` that only canonicalizers which iterate take."""


class AdaptedModel(HubModel, nn.Module):
    """A model with canonicalizers before some of its stages: M~ of section 4.3.

    An ordinary module: `train`, `eval`, `state_dict`, `to` reach everything. Made by `adapt`, undone
    by `unadapt`; attributes it does not have itself are the model's. `push_to_hub` and
    `from_pretrained` share it on the Hugging Face Hub.

    Attributes:
        model: the adapted model; its canonicalized stages are `CanonicalizedStage`s.
        mode: "invariant" or "equivariant".
        settings: what `adapt` was asked for, as plain values where they were plain.
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
        return {name: _get(self.model, name) for name in self.names}

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
            _remove(base, name)
        try:
            yield base
        finally:
            for name, site in sites.items():
                if name != IMAGE:
                    _put(base, name, site)

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


def adapt(
    model: nn.Module,
    sites: Sequence[str] | str | None = None,
    *,
    canonicalizer: str | Callable[..., nn.Module] = "dec",
    warp: str = "separable",
    rule: Any = "residual",
    solver: Any = "anderson",
    steps: int = 5,
    mode: str = "invariant",
    feed: str = "latent",
    **options: Any,
) -> AdaptedModel:
    """Put a canonicalizer before chosen stages of `model`.

    The stages are replaced in place by `CanonicalizedStage`s, so `model` itself is part of the
    result; `unadapt` gives it back as it was. Fresh canonicalizers answer with the identity.

    Args:
        model: any model; timm's families of ViT, Swin, BEiT, ResNet, ConvNeXt, PVT and HRNet, torchvision's
            of ViT, Swin, ResNet and ConvNeXt, and transformers' of ViT, DeiT, DINOv2, Swin and SegFormer
            are known by heart, the stages of others are found by a dry run.
        sites: stage names as `lse adapt --list MODEL` prints them, "image" being the input; None
            means the image and the first latent stage.
        canonicalizer: name of a canonicalizer plugin, or a callable (channels, **settings) -> module.
        warp: name of the warp family: "separable", or "grid" for the paper's coupled grids, which of the
            canonicalizers built in only "dec" knows.
        rule: update rule, a name ("residual", "compose", "absolute") or an object.
        solver: fixed-point solver, a name ("naive", "anderson", "broyden") or an object.
        steps: evaluations of the update, at least 1.
        mode: "invariant" (Eq. 22) or "equivariant" (Eq. 21: outputs are warped back where dense).
        feed: what the canonicalizers of latent stages look at: "latent", F_k as in the paper, or "image", the
            image that entered the model (canonicalized, if it is a site too) as in the authors' code.
        options: further settings of the canonicalizer, by the names its class documents.

    Returns:
        The adapted model, on the device and in the dtype of `model`.

    Raises:
        UnknownNameError: a name nothing provides, with the closest match.
        ShapeError: a stage that takes no spatial map.
        LSEError: already adapted, a stage named twice, or a setting out of range.
    """
    if isinstance(model, AdaptedModel):
        raise LSEError("the model is adapted already; call lse_dec.unadapt first, or name all sites at once")
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    if feed not in FEEDS:
        raise unknown_name("feed", feed, FEEDS)
    reg = registry()
    if isinstance(warp, str):
        reg.get("warp", warp)
    backbone = backbone_of(model)
    if sites is None:
        sites = [IMAGE, *(stage.name for stage in backbone.stages(model)[:1])]
    names = [sites] if isinstance(sites, str) else list(sites)
    if not names or len(set(names)) != len(names):
        raise LSEError(f"sites must name at least one stage, each once; got {names}")
    places = [find_stage(backbone, model, name) for name in names]
    factory = reg.get("canonicalizer", canonicalizer) if isinstance(canonicalizer, str) else canonicalizer
    settings = {
        "canonicalizer": canonicalizer,
        "rule": rule,
        "solver": solver,
        "steps": steps,
        "warp": warp,
        **options,
    }
    if feed != FEEDS[0]:
        settings["feed"] = feed
    given = {
        "rule": build(reg.get("update", rule)) if isinstance(rule, str) else rule,
        "solver": build(reg.get("solver", solver)) if isinstance(solver, str) else solver,
        "steps": steps,
    }
    for name, default in _ITERATION.items():  # which canonicalizers without iteration do not take
        if not takes(factory, name):
            if settings[name] != default:
                raise LSEError(f"canonicalizer {canonicalizer!r} takes no {name}; got {settings[name]!r}")
            del given[name]
    if warp != "separable":
        if not takes(factory, "warp"):
            raise UnknownNameError(
                f"canonicalizer {canonicalizer!r} knows the warp 'separable' only; got {warp!r}"
            )
        given["warp"] = warp
    # build every module before touching the model: an error must leave it as it was
    channels = [place.channels for place in places]
    if feed == "image":
        channels = [backbone.image(model).channels] * len(places)
    made = [build(factory, seen, **given, **options) for seen in channels]
    adapted = AdaptedModel(model, mode, settings)
    adapted.entrance = Entrance() if feed == "image" else None
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    for place, module in zip(places, made, strict=True):
        if like is not None:
            module.to(device=like.device, dtype=like.dtype)
        _insert(adapted, place, module.train(model.training), mode)
        if place.watch is not None:
            adapted.handles.append(place.watch(model))
    # only the wrappers: a layer that the caller froze in eval mode stays so
    for wrapper in (adapted, *adapted.sites.values()):
        wrapper.training = model.training
    return adapted


def _insert(adapted: AdaptedModel, place: Stage, canonicalizer: nn.Module, mode: str) -> None:
    if place.name == IMAGE:
        adapted.model = ImageSite(adapted.model, canonicalizer, place, mode, adapted.entrance)
    else:
        stage = _get(adapted.model, place.name)
        if adapted.entrance is None:
            site = CanonicalizedStage(stage, canonicalizer, place, mode)
        else:
            site = ImageFedStage(stage, canonicalizer, place, mode, adapted.entrance)
        _put(adapted.model, place.name, site)
    adapted.names.append(place.name)


def _get(root: nn.Module, name: str) -> Any:
    """The module at the stage `name`: the site if there is one."""
    if name == IMAGE:
        return root
    parent, child = _parent(root, name)
    return getattr(parent, child)


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, child = _parent(root, name)
    # setattr on containers such as Sequential takes their string indices too
    setattr(parent, child, module)


def _remove(root: nn.Module, name: str) -> None:
    if name != IMAGE:
        _put(root, name, _get(root, name).stage)


def _parent(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds the stage `name`; names are those of the base, so sites are looked through."""
    *path, child = name.split(".")
    module = _behind(root)
    for part in path:
        module = _behind(getattr(module, part))
    return module, child


def _behind(module: nn.Module) -> nn.Module:
    return module.stage if isinstance(module, CanonicalizedStage) else module


def unadapt(adapted: AdaptedModel) -> nn.Module:
    """Take the canonicalizers out and return the original model, bit for bit; the wrapper is spent."""
    if not isinstance(adapted, AdaptedModel):
        raise LSEError(f"unadapt takes what lse_dec.adapt returned; got {type(adapted).__name__}")
    for name in adapted.names:
        _remove(adapted.model, name)
    for handle in adapted.handles:
        handle.remove()
    model = adapted.base
    adapted.names, adapted.handles = [], []
    return model
