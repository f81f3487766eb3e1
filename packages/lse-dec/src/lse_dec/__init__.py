"""Deep equilibrium canonicalizers that make any timm model consistent under local scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names

if TYPE_CHECKING:
    from lse_dec.adaptation import AdaptedModel, adapt, unadapt
    from lse_dec.checkpoint import load, save
    from lse_dec.equivariance import equivariance_loss
    from lse_dec.observation import entering, observe

__version__ = "0.1.0"

_HOMES = {
    "adaptation": ["AdaptedModel", "adapt", "unadapt"],
    "checkpoint": ["load", "save"],
    "equivariance": ["equivariance_loss"],
    "observation": ["entering", "observe"],
}

__all__ = [
    "AdaptedModel",
    "adapt",
    "entering",
    "equivariance_loss",
    "load",
    "observe",
    "save",
    "unadapt",
]


_MOVED = {
    "contraction.jacobian_penalty": "call torchdeq.loss.jac_reg(f(z), z, create_graph=True), which it called",
    "contraction.lipschitz": "take torch.linalg.matrix_norm(torch.func.jacrev(f)(z), 2)",
    "contraction.spectral_bound": "it served contraction by construction, which was removed",
    "data": "lse_data",
    "demo": "lse_train.demo",
    "feeding": "lse_dec.sites",
    "plot.SiteView": "lse_dec.observation.Observation",
    "recipes": "lse_train.recipes",
    "settings": "lse_core.settings",
    "training": "lse_train",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES, _MOVED)
