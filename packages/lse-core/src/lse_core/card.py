"""Facts that travel with a model through files and commands: preprocessing, class names, origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lse_core.errors import ShapeError

if TYPE_CHECKING:
    from torch import nn

    from lse_core.preprocess import Preprocess

__all__ = ["Card", "attach", "card_of", "check_class_names"]

_NAME = "lse_card"


@dataclass(frozen=True)
class Card:
    """Facts about a model.

    Attributes:
        preprocess: how a picture becomes an input of the model; None where nothing is known of it.
        class_names: names of the classes, in the order of the model's outputs.
        source: how to build the architecture again, as plain values (strings, numbers, lists, mappings).
        training: how the model was trained, as plain values; for people and for the evaluation of runs.
    """

    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] | None = None
    source: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None


def card_of(model: nn.Module) -> Card:
    """The card of `model` (of the base model if `model` is adapted); an empty card where it has none."""
    found = getattr(model, _NAME, None)
    return found if isinstance(found, Card) else Card()


def check_class_names(model: nn.Module, names: Sequence[str] | None) -> None:
    """Raise ShapeError where the model says that it has another number of classes than there are names."""
    from torch import nn

    count, last = getattr(model, "num_classes", None), None
    with suppress(AttributeError):  # a head that was put in the place of timm's
        last = model.get_classifier()  # type: ignore[operator]
    # a head of another kind may make more of the model's scores
    if names is not None and isinstance(last, nn.Linear) and last.out_features == count != len(names):
        raise ShapeError(
            f"the model has {count} classes and {len(names)} class names: give one name for each"
        )


def attach(model: nn.Module, **facts: Any) -> None:
    """Write facts onto the card of `model`; facts that are not named stay as they are.

    The card of an adapted model is that of its base model, so facts remain when the adaptation is undone.

    Args:
        model: any module.
        facts: attributes of `Card` and their new values.

    Raises:
        ShapeError: names of another number of classes than the model says that it has.
    """
    from torch import nn

    check_class_names(model, facts.get("class_names"))
    inside = getattr(model, "base", None)
    target: Any = inside if hasattr(model, "canonicalizers") and isinstance(inside, nn.Module) else model
    setattr(target, _NAME, replace(card_of(model), **facts))
