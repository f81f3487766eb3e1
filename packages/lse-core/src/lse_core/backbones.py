"""The backbone that an installed plugin offers for a model: where its stages are (hook `lse_backbones`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lse_core.plugins import registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["find_backbone"]

GENERIC = "generic"
"""Name of the backbone that takes every model; asked last."""


def find_backbone(model: nn.Module) -> Any | None:
    """The registered backbone that matches `model`: other distributions' first, the generic one last.

    None where none matches, as where lse-dec is not installed. CONTRIBUTING.md says what a backbone has.
    """
    reg = registry()

    def order(name: str) -> tuple[bool, bool]:
        return name == GENERIC, reg.provider("backbone", name) == "lse-dec"

    for name in sorted(reg.names("backbone"), key=order):
        backbone = reg.get("backbone", name)
        if backbone.matches(model):
            return backbone
    return None
