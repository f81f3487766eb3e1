"""The settings that measured best, for a canonicalizer at the image and for those at latent sites.

    from lse_dec.presets import AT_IMAGE

    adapted = lse_dec.adapt(model, "image", **AT_IMAGE.adapt)

They differ from the defaults of `lse_dec.adapt` in the rule. The default is "residual", whose fixed point is
equivariant in theory. Measured on scales that training never saw, with Eq. 5 as the only loss, "absolute" is
at least as good: it has 71.8 % accuracy and an InvE of 0.233, "residual" 70.2 % and 0.262, "compose" 68.9 %
and 0.251. The differences are of the size of the standard deviations over three seeds, but the solves with
"absolute" also converge best (docs/results/update_rules.md), and it beats "compose" on each of three models
(docs/results/unseen_scales.md). The demo keeps "compose", to show a rule whose fixed point is equivariant.

What a canonicalizer learns from matters more than its rule. `Preset.training` says
what it is at the image and at latent sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["AT_IMAGE", "LATENT", "Preset"]


class Preset(NamedTuple):
    """Settings that belong together.

    Attributes:
        adapt: keywords of `lse_dec.adapt`, without the sites.
        training: how the canonicalizers learn beside Eq. 5 (`lse_dec.equivariance_loss`, weight 1), by the
            names that a run of lse-train has under `canonicalizer`. "task_gradient": whether the task's
            gradient reaches them; where it does not, compute the task's loss under
            `AdaptedModel.canonicalizers_held`. "centre": weight, within Eq. 5, of the mean answer's distance
            from the identity, which keeps canonical forms where the pictures are.
    """

    adapt: Mapping[str, Any]
    training: Mapping[str, Any]


_DEC: Mapping[str, Any] = {
    "canonicalizer": "dec",
    "rule": "absolute",
    "solver": "anderson",
    "steps": 5,
    "segments": 8,
    "ratio": 4.0,
    "gradient": "unrolled",
    "projection": 8,
    "widths": (16, 32),
    "resolution": 16,
}

AT_IMAGE = Preset(adapt=_DEC, training={"task_gradient": False, "centre": 0.0})
"""For one canonicalizer at the image: Eq. 5 alone.

With the task's gradient beside it accuracy at unseen scales fell from 72.6 % to 68.3 %
(docs/results/unseen_scales.md).
"""

LATENT = Preset(adapt=_DEC, training={"task_gradient": True, "centre": 1.0})
"""For canonicalizers at latent sites: the task's gradient and Eq. 5 together, forms kept around the identity.

One at the image and one at the first stage, so trained, have 77.6 % accuracy and an InvE of 0.166 within the
range of the training, where Aug continued has 69.1 % and 0.192. By Eq. 5 alone latent modules gain nothing
(docs/results/tableA3.md). Latent sites were not measured on scales that training never saw.
"""
