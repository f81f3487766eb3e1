"""What a model knows of itself beside its weights; it goes with the model through files and commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from lse_core.preprocess import Preprocess

__all__ = ["Card", "attach", "card_of"]

_NAME = "lse_card"


@dataclass(frozen=True)
class Card:
    """Facts about a model.

    Attributes:
        preprocess: how it wants its pictures.
        class_names: of its outputs, in order.
        source: how to make its architecture again, as `lse_dec.save` writes it: plain values.
        training: what trained it: plain values, for people and for `lse evaluate`.
    """

    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] | None = None
    source: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None


def card_of(model: nn.Module) -> Card:
    """The card of `model`, for an adapted one that of the model inside; an empty one where there is none."""
    found = getattr(model, _NAME, None)
    return found if isinstance(found, Card) else Card()


def attach(model: nn.Module, **facts: Any) -> None:
    """Write facts onto the card of `model`; those not named stay.

    On an adapted model they go to the model inside, so that `lse_dec.unadapt` keeps them.

    Args:
        model: any module; its `base`, where it has one.
        facts: attributes of `Card`.
    """
    from torch import nn

    inside = getattr(model, "base", None)
    target: Any = inside if hasattr(model, "canonicalizers") and isinstance(inside, nn.Module) else model
    setattr(target, _NAME, replace(card_of(model), **facts))
