"""`bound`: what is certain about the equivariance error of each place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lse_soft.bounds import error_bound, vacuous_beyond
from lse_soft.errors import SoftError
from lse_soft.groups import Group, make_group
from lse_soft.places import Place, backbone, find_places, tensor_of
from lse_soft.softening import folded, softened, spectrum_of
from lse_soft.spectra import Spectrum
from lse_soft.thresholds import guarantees

__all__ = ["Certificate", "bound", "certify"]


@dataclass(frozen=True)
class Certificate:
    """A bound on one layer's error; a network's is not the product, as nonlinearities lie between.

    For every group element at distance d the layer errs by at most kappa * d * ||W||_F * ||x||, in the sense
    that `metric` says; for groups that stretch, times a growth factor (`lse_soft.generators.growth`, or
    `lse_soft.bounds.scaling_bound`).

    Attributes:
        place: its name.
        kind: what it is, see `lse_soft.places`.
        group: which group.
        b: softness that it was softened with; None where the weights were not.
        kappa: what the weights have now; at most b where b is guaranteed.
        guaranteed: whether the softening promises kappa <= b. Not for "exponential", nor for
            polynomial filters, nor where b is None.
        metric: what distance is measured in, and whether the bound is a maximum or a root mean square.
        vacuous_beyond: distance from which on the bound says nothing (2 / kappa), None for groups that
            stretch, of which that is not known.
        vacuous: whether it says nothing about the farthest elements of the group; None where not known.
    """

    place: str
    kind: str
    group: str
    b: float | None
    kappa: float
    guaranteed: bool
    metric: str
    vacuous_beyond: float | None
    vacuous: bool | None

    def error(self, distance: float, growth: float = 1.0) -> float:
        """The largest relative error at `distance`; see `lse_soft.bounds.error_bound`."""
        return error_bound(self.kappa, distance, growth)


def bound(
    model: nn.Module | str | Path,
    group: str | Group | None = None,
    *,
    places: Sequence[str] | Mapping[str, str] | None = None,
    **settings: Any,
) -> dict[str, Certificate]:
    """Certificates by place, measured on the weights as they are now.

    Args:
        model: a softened model; or any model, together with `group`; or a folder that
            `lse_soft.save` wrote.
        group: what to certify a model for that is not softened (folded, trained on, or never softened).
        places: then, where; see `lse_soft.soften`.
        settings: then, of the group.

    Raises:
        SoftError: a model that is not softened and no group.
        LSEError: see `soften`, and for folders `lse_soft.load`.
    """
    if isinstance(model, str | Path):
        from lse_soft.checkpoint import read_certificates

        return read_certificates(Path(model))
    if group is None:
        found = softened(model)
        if not found:
            raise SoftError(
                "the model is not softened; name the group to certify it for, as bound(model, 'rotation')"
            )
        return {
            s.place.name: certify(s.place, s.group, s.spectrum, tensor, s.b, s.threshold)
            for s, tensor in found
        }
    made = make_group(group, settings)
    certificates = {}
    with folded(model), backbone(model) as base:
        for place in find_places(base, made.kinds, places):
            spectrum = spectrum_of(made, place)
            if spectrum is not None:
                certificates[place.name] = certify(place, made, spectrum, tensor_of(base, place))
    return certificates


def certify(
    place: Place,
    group: Group,
    spectrum: Spectrum,
    weight: Tensor,
    b: float | None = None,
    threshold: str | None = None,
) -> Certificate:
    """The certificate of `weight`, the tensor at `place`; b and threshold where it was softened."""
    kappa = spectrum.kappa(place.elements(weight.detach()))
    certain = b is not None and threshold is not None and guarantees(threshold) and spectrum.exact
    beyond = vacuous_beyond(kappa) if group.orthogonal else None
    far = group.farthest
    return Certificate(
        place=place.name,
        kind=place.kind,
        group=group.title,
        b=b,
        kappa=kappa,
        guaranteed=certain,
        metric=group.metric,
        vacuous_beyond=beyond,
        vacuous=None if beyond is None or far is None else far >= beyond,
    )
