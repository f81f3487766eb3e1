"""The settings that define the compared methods; the rows of a table differ in nothing else.

Values may hold "$seed". All begin with the same weights and get the same further steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lse_dec.presets import AT_IMAGE, LATENT

__all__ = ["PRESETS"]


def _under(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` by dotted keys, with the lists that YAML has in place of tuples."""
    return {f"{name}.{k}": list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


_ABSOLUTE: Mapping[str, Any] = {"adapt.sites": ["image"], **_under("adapt", AT_IMAGE.adapt)}
_DEC: Mapping[str, Any] = {**_ABSOLUTE, "adapt.rule": "compose"}
_CENTRED: Mapping[str, Any] = {"canonicalizer.centre": 1.0}
_TRUE: Mapping[str, Any] = {"adapt": None, "augment.warp_ratio": 1.0, "data.name": "true_scales"}
_BY_TASK: Mapping[str, Any] = {"canonicalizer.weight": 0.0, "canonicalizer.task_gradient": True}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "base": {"augment.warp_ratio": 1.0, "adapt": None},
    "aug": {"adapt": None},
    "augl": {"method.name": "augl", "adapt": None},
    "invl": {"method.name": "invl", "adapt": None},
    # as the paper trains them: by the task's loss. It has 64 warps, which on a CPU cost ten times a DEC
    "canon": {
        "adapt.sites": ["image"],
        "adapt.canonicalizer": "canon",
        "adapt.ratio": 4.0,
        "adapt.warps": 32,
        "adapt.resolution": 16,
        "adapt.widths": [16, 16],
        **_BY_TASK,
    },
    "optim": {"adapt.sites": ["image"], "adapt.canonicalizer": "optim", "adapt.ratio": 4.0, **_BY_TASK},
    "dec": _DEC,
    # canonical forms that on average lie where the pictures do
    "dec_centred": {**_DEC, **_CENTRED},
    "dec_residual": {**_DEC, "adapt.rule": "residual"},
    "dec_absolute": _ABSOLUTE,
    "dec_absolute_centred": {**_ABSOLUTE, **_CENTRED},
    # for latent stages, where Eq. 5 alone gains nothing
    "dec_absolute_both": {
        "adapt.sites": ["image"],
        **_under("adapt", LATENT.adapt),
        **_under("canonicalizer", LATENT.training),
    },
    # without Eq. 5: a training picture is its own canonical form; and half of each
    "dec_prior": {**_ABSOLUTE, "canonicalizer.prior": 1.0},
    "dec_half_prior": {**_ABSOLUTE, "canonicalizer.prior": 0.5},
    # ceilings: the known factors are undone, as well as a family of warps can, for training and tests
    "true_separable": {**_TRUE, "data.options.family": "separable"},
    "true_triangular": {**_TRUE, "data.options.family": "triangular"},
    # the rule of the authors' code, and their signal too
    "dec_authors": {**_ABSOLUTE, **_BY_TASK},
    "dec_variation": {**_DEC, "adapt.start": "variation"},
    "variation": {
        "adapt.sites": ["image"],
        "adapt.canonicalizer": "variation",
        "adapt.strength": 0.75,
        **_BY_TASK,
    },
}
"""Methods by name, over a run that augments with random warps."""
