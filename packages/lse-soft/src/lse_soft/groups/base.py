"""The base class of groups, which give the spectrum of their constraints for each kind of weight."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from lse_core.errors import unknown_name
from lse_core.plugins import registry
from lse_soft.errors import SoftError
from lse_soft.spectra import Spectrum

__all__ = ["Group", "make_group"]

Grid = tuple[int, int]


class Group(ABC):
    """A group and how it acts; subclasses are frozen dataclasses of plain settings.

    Each method gives the spectrum of one kind of weight, None where that kind is exactly equivariant
    already, or raises `SoftError` where the group does not act on it. Grids are (height, width).
    """

    title: ClassVar[str]
    """Name for people."""
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of places that are softened unless others are named, see `lse_soft.places`."""
    orthogonal: ClassVar[bool] = True
    """Whether the action keeps norms, so that errors beyond 2 ||W|| ||x|| cannot occur."""

    @property
    def metric(self) -> str:
        """What b and kappa are relative to: the unit of distance, and whether a maximum or a mean square."""
        raise NotImplementedError

    @property
    def farthest(self) -> float | None:
        """The largest distance of an element from the identity; None where not known."""
        return None

    def filter(self, size: Grid, stride: Grid) -> Spectrum | None:
        """Filters (..., kh kw) of a convolution or patch embedding: functionals on a window."""
        raise self._refusal("filters")

    def functional(self, grid: Grid) -> Spectrum | None:
        """Functionals (..., h w) of a whole image or of all tokens."""
        raise self._refusal("functionals of whole images")

    def array(self, grid: Grid) -> Spectrum | None:
        """Arrays (..., h w) that the group acts on: position embeddings."""
        raise self._refusal("position embeddings")

    def mixing(self, outputs: Grid, inputs: Grid) -> Spectrum | None:
        """Maps (h_o w_o, h_i w_i) between grids: token mixing."""
        raise self._refusal("token mixing")

    def vectors(self, outputs: Grid, inputs: Grid) -> Spectrum | None:
        """Maps between features that are (vectors, scalars), vectors first, components side by side.

        A bias is a map from one scalar, inputs (0, 1).
        """
        raise self._refusal("vector features")

    def settings(self) -> dict[str, Any]:
        """The group's settings as plain values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def _refusal(self, what: str) -> SoftError:
        kinds = ", ".join(self.kinds)
        return SoftError(f"the group {self.title!r} does not act on {what}; it acts on: {kinds}")


def make_group(group: str | Group, settings: Mapping[str, Any] | None = None) -> Group:
    """The group called `group` with `settings`, or the object itself.

    Raises:
        UnknownNameError: no plugin provides that group, or it has no such setting.
        SoftError: a setting is out of range, or settings were given with an object.
    """
    if isinstance(group, Group):
        if settings:
            raise SoftError("settings go with the name of a group; this one was made already")
        return group
    kind = registry().get("group", group)
    known = list(getattr(kind, "__dataclass_fields__", {}))
    for name in settings or {}:
        if name not in known:
            raise unknown_name(f"setting of the group {group!r}", name, known)
    made: Group = kind(**(settings or {}))
    return made
