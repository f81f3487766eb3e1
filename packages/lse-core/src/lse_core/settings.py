"""Settings, from files or as keywords of a plugin: what does not fit is refused in one line that names it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from lse_core.errors import LSEError, unknown_name

__all__ = ["Settings", "SettingsError", "build", "takes", "validated"]

S = TypeVar("S", bound="Settings")
T = TypeVar("T")


class SettingsError(LSEError, ValueError):
    """A setting is missing, of the wrong type or out of range; the text names it."""


class Settings(BaseModel):
    """Base of settings that are read from files: frozen, and closed to names it does not know.

    Build one from plain values of unknown origin by `validated`, which answers with an `LSEError`;
    the constructor raises pydantic's own ValidationError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    def plain(self) -> dict[str, Any]:
        """The settings as JSON values; `validated` takes them back."""
        return self.model_dump(mode="json")


def validated(cls: type[S], values: Mapping[str, Any], where: str = "") -> S:
    """An instance of `cls` from plain values, such as JSON or YAML gives them.

    Args:
        cls: a subclass of `Settings`.
        values: its fields; lists stand for tuples.
        where: what the values belong to, put before each message ("runs/a/config.json").

    Raises:
        UnknownNameError: a name that is no field, with the nearest one.
        SettingsError: a value that is missing, of the wrong type or out of range.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise one_line(cls, error, f"{where}: " if where else "") from error


def one_line(cls: type[BaseModel], error: ValidationError, where: str = "") -> LSEError:
    """What pydantic said of settings of `cls`, as the error that `validated` raises, behind `where`."""
    fault = error.errors(include_url=False)[0]
    parts = [str(part)[:80] for part in fault["loc"]]  # keys of files may be of any length
    path = ".".join(parts)
    if fault["type"] == "extra_forbidden":
        *parents, name = parts
        told = unknown_name("setting", name, _fields(cls, parents))
        return type(told)(f"{where}{'.'.join(parents)}{': ' if parents else ''}{told}")
    if fault["type"] == "missing":
        return SettingsError(f"{where}{path!r} is missing")
    reason = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    got = fault.get("input")
    shown = "" if isinstance(got, Mapping | BaseModel) else f"; got {got!r}"
    place = f"{path!r}: " if path else ""
    return SettingsError(f"{where}{place}{reason[:1].lower()}{reason[1:]}{shown[:200]}")


def _fields(cls: Any, parents: list[str]) -> list[str]:
    """Names of the fields where an unknown one was found."""
    for parent in parents:
        kind = cls.model_fields[parent].annotation if parent in cls.model_fields else None
        kinds = [kind, *getattr(kind, "__args__", ())]
        cls = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), cls)
    return list(cls.model_fields)


def takes(factory: Callable[..., Any], name: str) -> bool:
    """Whether `factory` can be called with a keyword `name`."""
    parameters = inspect.signature(factory).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def build(factory: Callable[..., T], *args: Any, **settings: Any) -> T:
    """Call `factory`, usually a plugin's class, with keywords of which its signature knows every one.

    Settings whose annotations are plain (numbers, texts, tuples of them, None) must be of that type.

    Raises:
        UnknownNameError: a keyword that the signature does not have, with the nearest one it has.
        SettingsError: a setting of the wrong type; NaN and infinity are no numbers here.
    """
    parameters, title = inspect.signature(factory).parameters, getattr(factory, "__name__", str(factory))
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = [n for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        for name in settings:
            if name not in known:
                raise unknown_name(f"setting of {title}", name, known[len(args) :])
    plain = _plain_settings(factory)
    try:
        plain.model_validate({n: _as_plain(v) for n, v in settings.items() if n in plain.model_fields})
    except ValidationError as error:
        raise one_line(plain, error, f"setting of {title} ") from error
    return factory(*args, **settings)


def _as_plain(value: Any) -> Any:
    """A list as the tuple that it stands for, and NumPy's scalars as numbers."""
    if isinstance(value, list):
        return tuple(value)
    return value.item() if getattr(value, "shape", None) == () else value


@lru_cache(maxsize=64)
def _plain_settings(factory: Callable[..., Any]) -> type[BaseModel]:
    """The settings of `factory` whose types can be checked, as a model that is strict about them."""
    try:
        made_by: Any = factory
        told = get_type_hints(made_by.__init__ if isinstance(factory, type) else factory, include_extras=True)
    except (AttributeError, NameError, TypeError):  # names that exist for type checkers alone
        told = {}
    fields: dict[str, Any] = {
        name: (kind, None) for name, kind in told.items() if name != "return" and _is_plain(kind)
    }
    strict = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", hide_input_in_errors=True)
    model: type[BaseModel] = create_model("Plain", __config__=strict, **fields)
    return model


def _is_plain(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        return _is_plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return all(part is type(None) or _is_plain(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return all(part is Ellipsis or _is_plain(part) for part in get_args(kind))
    return get_origin(kind) is Literal or kind in (int, float, bool, str)
