"""Support tables: data files with their source and date, one for each target."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from lse_core.errors import unknown_name

__all__ = ["TARGETS", "Table", "load_table"]

TARGETS = ("tensorrt10", "tensorrt11", "tensorrt-rtx", "onnxruntime", "web")
"""Targets a file can be checked for."""


@dataclass(frozen=True)
class Limit:
    """Values of an attribute that a target takes; an attribute that is absent is fine.

    Attributes:
        operators: of the standard domain.
        attribute: its name.
        values: those it may have.
        fix: what to do about others.
    """

    operators: tuple[str, ...]
    attribute: str
    values: tuple[object, ...]
    fix: str


@dataclass(frozen=True)
class Bound:
    """What numbers written in the file a target takes as an input of an operator.

    Attributes:
        operators: of the standard domain.
        input: which of the node's inputs, from 0. One that is computed is not looked at.
        fix: what to do about other numbers.
        index: looks at this entry alone; None at all of them.
        values: the numbers it may hold; () any.
        above: all must be greater; None any.
        largest: none may be greater; None any.
        same_as_input: the entry must equal this size of the node's first input, where that is known.
        modes: looks only at nodes whose attribute "mode" is one of these; () at all.
    """

    operators: tuple[str, ...]
    input: int
    fix: str
    index: int | None = None
    values: tuple[float, ...] = ()
    above: float | None = None
    largest: float | None = None
    same_as_input: bool = False
    modes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """Operators that a target reads, or says it does, and then cannot build.

    Attributes:
        operators: of the standard domain.
        what: what is wrong with them.
        fix: what to do.
    """

    operators: tuple[str, ...]
    what: str
    fix: str


@dataclass(frozen=True)
class Table:
    """What a target takes.

    Attributes:
        target: its name in `TARGETS`.
        name: its name for people.
        source: where the table comes from.
        date: of the source, ISO 8601.
        opsets: first and last opset of the standard domain.
        domains: operator domains it knows.
        types: types of an operator's data, by operator of the standard domain.
        limits: on attributes.
        bounds: on numbers among the inputs.
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
    types: dict[str, frozenset[str]]
    limits: tuple[Limit, ...] = ()
    bounds: tuple[Bound, ...] = ()
    refused: tuple[Refused, ...] = ()
    uniform: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    @property
    def is_tensorrt(self) -> bool:
        """Whether TensorRT's own traps apply, whatever the flavour."""
        return self.target.startswith("tensorrt")

    @property
    def is_rtx(self) -> bool:
        """Whether the target is TensorRT for RTX, whose parser reads more than that of TensorRT 10 and 11."""
        return self.target == "tensorrt-rtx"


@cache
def load_table(target: str) -> Table:
    """Read a target's table; UnknownNameError names the closest match."""
    if target not in TARGETS:
        raise unknown_name("target", target, TARGETS)
    data = _read(target)
    types = {
        operator: frozenset(group["types"]) for group in data["support"] for operator in group["operators"]
    }
    first, last = data["opsets"]
    more = _read(data["limits"]) if "limits" in data else {}
    return Table(
        target=target,
        name=data["name"],
        source=data["source"],
        date=str(data["date"]),
        opsets=(first, last),
        domains=tuple(data["domains"]),
        types=types,
        limits=tuple(Limit(**_tuples(entry)) for entry in more.get("limit", ())),
        bounds=tuple(Bound(**_tuples(entry)) for entry in more.get("bound", ())),
        refused=tuple(Refused(**_tuples(entry)) for entry in more.get("refused", ())),
        uniform=tuple(more.get("uniform", ())),
        inputs=tuple(data.get("inputs", ())),
    )


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__package__) / "tables" / f"{name}.toml").read_text("utf-8"))
