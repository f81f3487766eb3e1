"""soften, unsoften, fold, folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lse_core.errors import LSEError
from lse_soft.errors import SoftError
from lse_soft.groups import Group, make_group
from lse_soft.places import Place, backbone, find_places, tensor_of
from lse_soft.softener import Softener, make_filter
from lse_soft.spectra import Filter, Spectrum
from lse_soft.thresholds import check_softness, guarantees, softness_for

__all__ = ["fold", "folded", "soften", "softened", "softeners", "spectrum_of", "unsoften"]


def soften(
    model: nn.Module,
    group: str | Group = "rotation",
    softness: float | None = None,
    *,
    keep: float | None = None,
    places: Sequence[str] | Mapping[str, str] | None = None,
    threshold: str = "cosine",
    preserve_dc: bool = True,
    **settings: Any,
) -> nn.Module:
    """Project weights onto the directions that a group's action moves least; no parameter is added.

    The weights become parametrizations (`torch.nn.utils.parametrize`): an optimiser goes on with the same
    parameters, gradients pass through the projection, and every forward uses softened weights. `unsoften`
    undoes it bit for bit, `fold` makes it permanent and the model plain again. While a model is softened its
    state_dict has other keys: save and export within `folded`.

    Args:
        model: any model; softened in place.
        group: name of a group ("rotation", "translation", "rigid", "local_scale", "cyclic", "so3",
            "lorentz", or a plugin's), or a `Group`.
        softness: b, in singular values: 0 keeps what is equivariant, infinity everything. The error of each
            softened layer is at most b times the distance of the group element (see `Group.metric`).
        keep: instead, the share of directions to keep at each place, within [0, 1].
        places: what to soften, see `lse_soft.places.find_places`; None: what the group finds sensible.
        threshold: "hard", "cosine" or "exponential" (without a relative guarantee), see
            `lse_soft.thresholds.factors`. A taper is the better one to train with; but it weighs down
            directions that it keeps, so use "hard" for a pretrained network that is not fine-tuned.
        preserve_dc: keep what filters answer to constant signals, which pretrained networks rely on.
        settings: of the group, by the names its class documents.

    Returns:
        `model`.

    Raises:
        SoftError: not exactly one of softness and keep, softened already, nothing to soften, a group without
            action on a place.
        UnknownNameError: a group, place, threshold or setting that nothing provides.
    """
    if (softness is None) == (keep is None):
        raise SoftError("give exactly one of softness (singular values below b) and keep (a share)")
    if softeners(model):
        raise SoftError("the model is softened already; call lse_soft.unsoften or lse_soft.fold first")
    guarantees(threshold)
    if softness is not None:
        check_softness(softness)
    made = make_group(group, settings)
    with backbone(model) as base:
        _soften(base, find_places(base, made.kinds, places), made, softness, keep, threshold, preserve_dc)
    return model


def _soften(
    model: nn.Module,
    found: Sequence[Place],
    made: Group,
    softness: float | None,
    keep: float | None,
    threshold: str,
    preserve_dc: bool,
) -> None:
    spectra: dict[Any, Spectrum | None] = {}
    filters: dict[Any, tuple[float, Filter]] = {}
    ready: list[Softener] = []
    # everything is made before the model is touched: an error must leave it as it was
    for place in found:
        if place.tensor not in model.get_submodule(place.module)._parameters:
            raise SoftError(
                f"{place.name}: its {place.tensor} already has a parametrization; remove that first"
            )
        weight = tensor_of(model, place)
        key = (place.kind, place.grid, place.stride, place.outputs, place.inputs)
        if key not in spectra:
            spectra[key] = spectrum_of(made, place)
        spectrum = spectra[key]
        if spectrum is None:
            continue
        try:
            spectrum.check(place.elements(weight))
        except LSEError as error:
            raise SoftError(f"{place.name}: {error}") from error
        kind = (*key, weight.dtype, weight.device)
        if kind not in filters:
            b = softness if softness is not None else softness_for(spectrum.values(), keep or 0.0)
            filters[kind] = (b, make_filter(spectrum, b, threshold))
        b, filter_ = filters[kind]
        order = list(model.get_submodule(place.module)._parameters)
        ready.append(Softener(place, made, spectrum, filter_, b, threshold, preserve_dc, order))
    if not ready:
        raise SoftError(
            f"every named place is already exactly equivariant "
            f"under {made.title}, so nothing is to be softened"
        )
    for softener in ready:
        weight = tensor_of(model, softener.place)
        softener.to(weight.device, weight.dtype)
        _register(model, softener)


def spectrum_of(group: Group, place: Place) -> Spectrum | None:
    """The spectrum of `group` on what lies at `place`; None where that is equivariant as it is.

    Raises:
        SoftError: the group does not act on this kind; names the place.
    """
    try:
        if place.kind in ("patch", "convolution"):
            return group.filter(place.grid, place.stride)
        if place.kind == "image":
            return group.functional(place.grid)
        if place.kind == "position":
            return group.array(place.grid)
        if place.kind == "mixing":
            return group.mixing(place.grid, place.grid)
        return group.vectors(place.outputs, place.inputs)
    except LSEError as error:
        raise SoftError(f"{place.name}: {error}") from error


def softeners(model: nn.Module) -> dict[str, Softener]:
    """The softeners of a model by the name of their place, in the order of the model."""
    return {softener.place.name: softener for _, softener in _softened(model)}


def softened(model: nn.Module) -> list[tuple[Softener, Tensor]]:
    """The softeners of a model, each with the tensor it gives now, cut off from autograd."""
    with torch.no_grad():
        return [(s, getattr(module, s.place.tensor).detach()) for module, s in _softened(model)]


def unsoften(model: nn.Module) -> nn.Module:
    """Remove all softeners; the parameters below them are kept, bit for bit.

    Args:
        model: what `soften` returned, or a model that holds it; changed in place.

    Raises:
        SoftError: nothing is softened.
    """
    _remove(_all(model))
    return model


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """Write the softened weights into the parameters and remove the softeners.

    The result computes the same and is plain: classes, keys, their order and the parameter objects are
    those from before `soften`.

    Args:
        model: what `soften` returned, or a model that holds it; changed in place.

    Raises:
        SoftError: nothing is softened.
    """
    found = _all(model)
    values = [getattr(module, s.place.tensor).detach().clone() for module, s in found]
    _remove(found)
    for (module, softener), value in zip(found, values, strict=True):
        getattr(module, softener.place.tensor).copy_(value)
    return model


@contextmanager
def folded(model: nn.Module) -> Iterator[nn.Module]:
    """The model as `fold` makes it, while the block runs: for saving, exporting and measuring.

    Changes made to softened weights within the block are lost; all else stays. A model without softeners
    is left as it is.
    """
    found = list(_softened(model))
    originals: list[nn.Parameter] = []
    with torch.no_grad():
        values = [getattr(module, s.place.tensor).detach().clone() for module, s in found]
    _remove(found)
    for (module, softener), value in zip(found, values, strict=True):
        original = module._parameters[softener.place.tensor]
        assert original is not None
        originals.append(original)
        # in the same slot of the dict, so that the order of keys stays
        module._parameters[softener.place.tensor] = nn.Parameter(value, original.requires_grad)
    try:
        yield model
    finally:
        for (module, softener), original in zip(found, originals, strict=True):
            module._parameters[softener.place.tensor] = original
            parametrize.register_parametrization(module, softener.place.tensor, softener)


def _register(model: nn.Module, softener: Softener) -> None:
    module = model.get_submodule(softener.place.module)
    parametrize.register_parametrization(module, softener.place.tensor, softener)


def _softened(model: nn.Module) -> list[tuple[nn.Module, Softener]]:
    """Modules that hold a softened tensor, each with the softener."""
    return [
        (module, parametrization)
        for module in model.modules()
        # in its own dict, since wrappers may hand attributes of what they wrap through
        for chain in _chains(module).values()
        for parametrization in chain
        if isinstance(parametrization, Softener)
    ]


def _chains(module: nn.Module) -> dict[str, Any]:
    found: Any = module._modules.get("parametrizations")
    return dict(found.items()) if parametrize.is_parametrized(module) and found is not None else {}


def _all(model: nn.Module) -> list[tuple[nn.Module, Softener]]:
    found = _softened(model)
    if not found:
        raise SoftError(f"{type(model).__name__} is not softened; call lse_soft.soften first")
    return found


def _remove(found: Sequence[tuple[nn.Module, Softener]]) -> None:
    """Put the original parameters back, each where it was in its module's order."""
    for module in {id(module): module for module, _ in found}.values():
        mine = [softener for owner, softener in found if owner is module]
        chains = _chains(module)
        if all(len(chain) == 1 and isinstance(chain[0], Softener) for chain in chains.values()):
            # by hand: torch's own removal takes the properties off the class, which deep copies share
            originals = {name: chain.original for name, chain in chains.items()}
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]
            for name, original in originals.items():
                module.register_parameter(name, original)
        else:
            for softener in mine:
                parametrize.remove_parametrizations(module, softener.place.tensor, leave_parametrized=False)
        own = module._parameters
        for name in mine[0].order:  # what is put back comes last
            if name in own:
                own[name] = own.pop(name)
