"""Kinds of values that settings have, as files written by people give them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt

from lse_core.errors import unknown_name

__all__ = ["Count", "Flag", "Number", "Seed", "Share", "Whole", "one_of", "several"]


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Flag = StrictBool
Whole = StrictInt
"""A whole number: neither 2.0 nor "2" nor True is one."""

Count = Annotated[StrictInt, Field(ge=1)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]  # what torch takes as a seed
Number = Annotated[float, Field(strict=True), BeforeValidator(_number)]
"""A finite number; also the text "1e-3", which is how PyYAML reads 1e-3."""

Share = Annotated[Number, Field(ge=0, le=1)]


def one_of(kind: str, known: Iterable[str]) -> AfterValidator:
    """Refuse, with an UnknownNameError that names the nearest one, a text that is none of `known`."""
    names = tuple(known)

    def check(name: str) -> str:
        if name not in names:
            raise unknown_name(kind, name, names)
        return name

    return AfterValidator(check)


several = BeforeValidator(lambda value: value if isinstance(value, list | tuple | None) else [value])
"""Lets one value stand for a list of one."""
