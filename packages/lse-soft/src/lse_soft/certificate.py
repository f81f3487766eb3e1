"""The bound on the equivariance error of one place."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lse_soft.bounds import error_bound, vacuous_beyond
from lse_soft.groups import Group
from lse_soft.places import Place
from lse_soft.spectra import Spectrum
from lse_soft.thresholds import guarantees

__all__ = ["Certificate", "certify"]


@dataclass(frozen=True)
class Certificate:
    """A bound on one layer's error. The bound of a network is not the product of those of its layers.

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
