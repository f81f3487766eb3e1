"""Adapting a model: canonicalizers are put before chosen stages, and taken out again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from lse_core.errors import LSEError, UnknownNameError, unknown_name
from lse_core.plugins import registry
from lse_core.settings import build, takes
from lse_dec.adapted import AdaptedModel, get_stage, put_stage, remove_site, without_gradient
from lse_dec.backbones import IMAGE, Stage, backbone_of, find_stage
from lse_dec.observation import observe
from lse_dec.sites import FEEDS, MODES, CanonicalizedStage, Entrance, ImageFedStage, ImageSite

__all__ = ["AdaptedModel", "adapt", "observe", "unadapt", "without_gradient"]

DEFAULTS = {"warp": "separable", "rule": "residual", "solver": "anderson", "steps": 5}
"""Settings of `adapt` that some canonicalizers do not take, and what stands for "not asked for"."""


def adapt(
    model: nn.Module,
    sites: Sequence[str] | str | None = None,
    *,
    canonicalizer: str | Callable[..., nn.Module] = "dec",
    warp: Any = "separable",
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
        model: any model that takes a batch of images. The stages are known of timm's ViT, Swin, BEiT, ResNet,
            ConvNeXt, PVT and HRNet, of torchvision's ViT, Swin, ResNet and ConvNeXt, and of transformers'
            ViT, DeiT, DINOv2, Swin and SegFormer. Those of other models are found by running them once on
            blank images.
        sites: stage names as `lse adapt --list MODEL` prints them, "image" being the input; None
            means the image and the first latent stage.
        canonicalizer: name of a canonicalizer plugin, or a callable (channels, **settings) -> module.
        warp: warp family, a name or an object: "separable", "triangular" (with `order` "xy" or "yx"), "grid"
            for the paper's coupled grids, or a plugin's. "dec" alone takes others than "separable".
        rule: update rule, a name ("residual", "compose", "absolute") or an object.
        solver: fixed-point solver, a name ("naive", "anderson", "anderson-i", "broyden") or an object.
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
    if not isinstance(model, nn.Module):
        raise LSEError(
            f"adapt takes a torch module; got {type(model).__name__}: timm.create_model makes one of a name"
        )
    if isinstance(model, AdaptedModel):
        raise LSEError(
            "the model is adapted already; call lse_dec.unadapt first, or name all sites in one call of adapt"
        )
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    if feed not in FEEDS:
        raise unknown_name("feed", feed, FEEDS)
    backbone = backbone_of(model)
    if sites is None:
        sites = [IMAGE, *(stage.name for stage in backbone.stages(model)[:1])]
    names = [sites] if isinstance(sites, str) else list(sites)
    if not names or len(set(names)) != len(names):
        raise LSEError(f"sites must name at least one stage, each once; got {names}")
    asked = {"rule": rule, "solver": solver, "steps": steps, "warp": warp}
    factory, given = _canonicalizer(canonicalizer, asked)
    places = [find_stage(backbone, model, name) for name in names]
    channels = [place.channels for place in places]
    if feed == "image":
        channels = [backbone.image(model).channels] * len(places)
    # build every module before touching the model: an error must leave it as it was
    made = [build(factory, seen, **given, **options) for seen in channels]
    fed = {} if feed == FEEDS[0] else {"feed": feed}
    adapted = AdaptedModel(model, mode, {"canonicalizer": canonicalizer, **asked, **options, **fed})
    adapted.entrance = Entrance() if fed else None
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


def _canonicalizer(
    canonicalizer: str | Callable[..., nn.Module], asked: Mapping[str, Any]
) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """What makes the canonicalizers, and those of the settings asked for that it takes, names as objects."""
    reg = registry()
    if isinstance(asked["warp"], str):
        reg.get("warp", asked["warp"])  # an unknown name is told whether or not it would be used
    factory = reg.get("canonicalizer", canonicalizer) if isinstance(canonicalizer, str) else canonicalizer
    given = dict(asked)
    for name, kind in (("rule", "update"), ("solver", "solver")):
        if isinstance(asked[name], str):
            given[name] = build(reg.get(kind, asked[name]))
    if asked["warp"] == DEFAULTS["warp"]:
        del given["warp"]
    for name in [name for name in given if not takes(factory, name)]:
        if name == "warp":
            raise UnknownNameError(
                f"canonicalizer {canonicalizer!r} knows the warp 'separable' only: "
                f"leave warp={asked['warp']!r} out"
            )
        if asked[name] != DEFAULTS[name]:
            raise LSEError(
                f"canonicalizer {canonicalizer!r} takes no {name}: leave {name}={asked[name]!r} out"
            )
        del given[name]
    return factory, given


def _insert(adapted: AdaptedModel, place: Stage, canonicalizer: nn.Module, mode: str) -> None:
    if place.name == IMAGE:
        adapted.model = ImageSite(adapted.model, canonicalizer, place, mode, adapted.entrance)
    else:
        stage = get_stage(adapted.model, place.name)
        kind = CanonicalizedStage if adapted.entrance is None else ImageFedStage
        put_stage(adapted.model, place.name, kind(stage, canonicalizer, place, mode, adapted.entrance))
    adapted.names.append(place.name)


def unadapt(adapted: AdaptedModel) -> nn.Module:
    """Take the canonicalizers out and return the original model, bit for bit.

    The adapted model holds no sites afterwards and is not to be used again.

    Raises:
        LSEError: not what `adapt` returned.
    """
    if not isinstance(adapted, AdaptedModel):
        raise LSEError(f"unadapt takes what lse_dec.adapt returned; got {type(adapted).__name__}")
    for name in adapted.names:
        remove_site(adapted.model, name)
    for handle in adapted.handles:
        handle.remove()
    model = adapted.base
    adapted.names, adapted.handles = [], []
    return model
