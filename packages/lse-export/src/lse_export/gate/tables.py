"""Support tables: data files with their source and date, one for each target."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from lse_core.errors import unknown_name
from lse_core.settings import Settings, validated

TARGETS = ("tensorrt10", "tensorrt11", "tensorrt-rtx", "onnxruntime", "web")
"""Targets a file can be checked for."""


class Support(Settings):
    """Types of data that some operators of the standard domain take."""

    operators: tuple[str, ...]
    types: frozenset[str]


class _Entry(Settings):
    """What a target does not take of some operators.

    Attributes:
        operators: of the standard domain.
        fix: what to do about it.
    """

    operators: tuple[str, ...]
    fix: str


class Limit(_Entry):
    """Values of an attribute that a target takes; an attribute that is absent is fine.

    Attributes:
        attribute: its name.
        values: those it may have.
    """

    attribute: str
    values: tuple[Any, ...]


class Bound(_Entry):
    """Numbers written in the file that a target takes as an input of an operator.

    Attributes:
        input: which of the node's inputs, from 0. One that is computed is not looked at.
        index: looks at this entry alone; None at all of them.
        values: the numbers it may hold; () any.
        above: all must be greater; None any.
        largest: none may be greater; None any.
        same_as_input: the entry must equal this size of the node's first input, where that is known.
        modes: looks only at nodes whose attribute "mode" is one of these; () at all.
    """

    input: int
    index: int | None = None
    values: tuple[float, ...] = ()
    above: float | None = None
    largest: float | None = None
    same_as_input: bool = False
    modes: tuple[str, ...] = ()


class Refused(_Entry):
    """Operators that a target reads, or says it does, and then cannot build; `what` is wrong with them."""

    what: str


class Table(Settings):
    """What a target takes.

    Attributes:
        target: its name in `TARGETS`.
        name: its name for people.
        source: where the table comes from.
        date: of the source, ISO 8601.
        opsets: first and last opset of the standard domain.
        domains: operator domains it knows.
        support: types of data by operators of the standard domain.
        limit: on attributes.
        bound: on numbers among the inputs.
        refused: operators that cannot be built although the target knows their names.
        uniform: operators whose inputs must agree in type, beside those of every target.
        inputs: types that the graph's own inputs may have; () any.
    """

    target: str
    name: str
    source: str
    date: str
    opsets: tuple[int, int]
    domains: tuple[str, ...]
    support: tuple[Support, ...]
    limit: tuple[Limit, ...] = ()
    bound: tuple[Bound, ...] = ()
    refused: tuple[Refused, ...] = ()
    uniform: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    @property
    def types(self) -> dict[str, frozenset[str]]:
        """Types of an operator's data, by operator of the standard domain."""
        return {operator: group.types for group in self.support for operator in group.operators}


@cache
def load_table(target: str) -> Table:
    """Read a target's table; UnknownNameError names the closest match."""
    if target not in TARGETS:
        raise unknown_name("target", target, TARGETS)
    data = _read(target)
    more = _read(data.pop("limits")) if "limits" in data else {}
    return validated(Table, {**more, **data, "target": target, "date": str(data["date"])}, f"{target}.toml")


@cache
def fixes() -> dict[str, str]:
    """What to do about a problem, by the rule that found it."""
    return _read("fixes")


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__package__) / "tables" / f"{name}.toml").read_text("utf-8"))
