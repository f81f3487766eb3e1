"""What lse-dec registers; heavy imports wait until a hook is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lse_core.plugins import hookimpl


@hookimpl
def lse_solvers() -> Mapping[str, Any]:
    """Naive, Anderson and Broyden."""
    from lse_dec import solvers

    return {"naive": solvers.Naive, "anderson": solvers.Anderson, "broyden": solvers.Broyden}


@hookimpl
def lse_updates() -> Mapping[str, Any]:
    """Residual, compose and absolute."""
    from lse_dec import updates

    return {"residual": updates.Residual, "compose": updates.Compose, "absolute": updates.Absolute}


@hookimpl
def lse_canonicalizers() -> Mapping[str, Any]:
    """The deep equilibrium canonicalizer."""
    from lse_dec import canonicalizers

    return {"dec": canonicalizers.DEC}


@hookimpl
def lse_backbones() -> Mapping[str, Any]:
    """timm's ViT and ResNet families."""
    from lse_dec import backbones

    return {"vit": backbones.ViT(), "resnet": backbones.ResNet()}
