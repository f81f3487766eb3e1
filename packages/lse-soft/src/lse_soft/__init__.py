"""Tunable soft equivariance: weights projected onto the directions that a group moves least, with a bound.

After "Tunable Soft Equivariance with Guarantees" (CVPR 2026), with exact bounds in place of first-order ones,
and for local scaling too. Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names

if TYPE_CHECKING:
    from lse_soft.bounds import error_bound, scaling_bound
    from lse_soft.certificate import Certificate
    from lse_soft.checkpoint import load, save
    from lse_soft.errors import SoftError
    from lse_soft.groups import Group
    from lse_soft.model_bound import bound
    from lse_soft.places import Place, find_places
    from lse_soft.softening import fold, folded, soften, softeners, unsoften

__version__ = "0.1.0"

_HOMES = {
    "bounds": ["error_bound", "scaling_bound"],
    "certificate": ["Certificate"],
    "checkpoint": ["load", "save"],
    "errors": ["SoftError"],
    "groups": ["Group"],
    # not `bound.py`: importing a submodule of that name would hide the function
    "model_bound": ["bound"],
    "places": ["Place", "find_places"],
    "softening": ["fold", "folded", "soften", "softeners", "unsoften"],
}

__all__ = [
    "Certificate",
    "Group",
    "Place",
    "SoftError",
    "bound",
    "error_bound",
    "find_places",
    "fold",
    "folded",
    "load",
    "save",
    "scaling_bound",
    "soften",
    "softeners",
    "unsoften",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
