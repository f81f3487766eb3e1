"""`bound`: certificates for every place of a model, in memory or in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lse_soft.certificate import Certificate, certify
from lse_soft.checkpoint import read_certificates
from lse_soft.errors import SoftError
from lse_soft.groups import Group, make_group
from lse_soft.places import backbone, find_places, tensor_of
from lse_soft.softening import folded, softened, spectrum_of

__all__ = ["bound"]


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
        return read_certificates(Path(model))
    if group is None:
        found = softened(model)
        if not found:
            raise SoftError("the model is not softened; name a group, as in bound(model, 'rotation')")
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
