"""The models that are compared: a plain one, and the same one adapted in many ways, on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from lse_dec import adapt
from lse_dec.backbones import IMAGE, backbone_of

__all__ = ["DEFAULT", "VARIANTS", "Variant", "adapted", "plain", "site_names"]


@dataclass(frozen=True)
class Variant:
    """One way to adapt a model.

    Args:
        name: what the table calls it.
        sites: how many, the image and the first latent stages.
        options: keywords of `lse_dec.adapt` that differ from its defaults.
    """

    name: str
    sites: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)


DEFAULT = Variant("adapted")

VARIANTS = (
    *(Variant(f"solver {name}", options={"solver": name}) for name in ("naive", "anderson-i", "broyden")),
    *(Variant(f"rule {name}", options={"rule": name}) for name in ("compose", "absolute")),
    *(Variant(f"{n} step{'s' * (n > 1)}", options={"steps": n}) for n in (1, 2, 10, 20)),
    *(Variant(f"{n} site{'s' * (n > 1)}", sites=n) for n in (1, 3, 4)),
    Variant("warp grid", options={"warp": "grid"}),
)
"""What is measured beside `DEFAULT` (two sites, residual, Anderson, 5 steps, separable)."""


def plain(name: str, size: int = 224, *, seed: int = 0) -> nn.Module:
    """A timm model with random weights for images of `size` pixels a side."""
    torch.manual_seed(seed)
    takes_size = "dinov2" in name or size != 224
    if takes_size:
        try:
            return timm.create_model(name, img_size=size)
        except TypeError:  # convolutional: any size will do
            pass
    return timm.create_model(name)


def adapted(model: nn.Module, variant: Variant = DEFAULT, *, seed: int = 0) -> nn.Module:
    """A copy of `model` that shares its weights, adapted.

    The last layer of every update gets random weights: fresh, it is zero, and a warp that stays the
    identity could be cheaper than one that does not.
    """
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    torch.manual_seed(seed)
    result: Any = adapt(copy.deepcopy(model, shared), site_names(model, variant.sites), **variant.options)
    for canonicalizer in result.canonicalizers.values():
        nn.init.normal_(canonicalizer.update.head.weight, std=0.1)
    return cast(nn.Module, result)


def site_names(model: nn.Module, count: int) -> list[str]:
    """The image and the first latent stages, `count` in all (fewer if the model has fewer)."""
    return [IMAGE, *(stage.name for stage in backbone_of(model).stages(model)[: count - 1])]


def displacement(model: Any, image: Tensor) -> float:
    """Mean distance that the warps of an adapted model move a point, as a share of the picture's side."""
    from lse_dec import observe

    with torch.no_grad(), observe(model) as seen:
        model(image)
    grid = torch.linspace(0.0, 1.0, 33, device=image.device).expand(len(image), -1)
    moved = [(getattr(c.warp, axis)(grid) - grid).abs().mean() for c in seen.values() for axis in "xy"]
    return float(torch.stack(moved).mean())
