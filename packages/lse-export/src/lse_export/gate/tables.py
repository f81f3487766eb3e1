"""Support tables: data files with their source and date, one for each target."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from lse_core.errors import unknown_name

__all__ = ["TARGETS", "Table", "load_table"]

TARGETS = ("tensorrt10", "tensorrt11", "onnxruntime", "web")
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
    """

    target: str
    name: str
    source: str
    date: str
    opsets: tuple[int, int]
    domains: tuple[str, ...]
    types: dict[str, frozenset[str]]
    limits: tuple[Limit, ...] = ()

    @property
    def is_tensorrt(self) -> bool:
        """Whether TensorRT's own traps apply."""
        return self.target.startswith("tensorrt")


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
    return Table(
        target=target,
        name=data["name"],
        source=data["source"],
        date=str(data["date"]),
        opsets=(first, last),
        domains=tuple(data["domains"]),
        types=types,
        limits=tuple(
            Limit(tuple(entry["operators"]), entry["attribute"], tuple(entry["values"]), entry["fix"])
            for entry in _read(data["limits"])["limit"]
        )
        if "limits" in data
        else (),
    )


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__package__) / "tables" / f"{name}.toml").read_text("utf-8"))
