"""Plain values to frozen settings and back: types checked, unknown keys refused by the nearest name."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from lse_core.errors import unknown_name
from lse_dec.training.config import ConfigError

__all__ = ["differences", "override", "parse", "plain", "read_yaml", "set_options"]

T = TypeVar("T")


def read_yaml(path: Any) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: absent, unreadable, no YAML, or no mapping.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"cannot read {path}: {reason}") from error
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold settings as `key: value`; it holds {type(found).__name__}")
    return found


def set_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Overrides from `key=value` texts; values are read as YAML, so lists and mappings work too.

    Raises:
        ConfigError: no `=`, or a value that is no YAML.
    """
    import yaml

    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"settings are key=value; got {pair!r}")
        try:
            found[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of {key} is no YAML: {text!r}") from error
    return found


def override(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested `settings` with values replaced by dotted keys; absent levels are made."""
    result = _copied(settings)
    for dotted, value in overrides.items():
        *path, last = dotted.split(".")
        place: Any = result
        for part in path:
            inner = place.get(part)
            if isinstance(inner, str):  # `model: resnet18` is short for `model: {name: resnet18}`
                inner = {"name": inner}
            if inner is None:
                inner = {}
            if not isinstance(inner, dict):
                raise ConfigError(f"cannot set {dotted}: {part} is {inner!r}, which has no parts")
            place[part] = inner
            place = inner
        place[last] = value
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def parse(cls: type[T], settings: Mapping[str, Any], where: str = "") -> T:
    """An instance of the dataclass `cls` from nested plain values.

    Args:
        cls: a frozen dataclass; its type hints say what is accepted.
        settings: values by field; a string stands for a dataclass with that `name`.
        where: dotted path of this part, for messages.

    Raises:
        UnknownNameError: a key that is no field.
        ConfigError: a field without default that is missing, or a value of the wrong type.
    """
    known: dict[str, Field[Any]] = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    for key in settings:
        if key not in known:
            raise unknown_name("setting", f"{where}{key}", [where + name for name in known])
    for name, entry in known.items():
        if name not in settings and entry.default is MISSING and entry.default_factory is MISSING:
            raise ConfigError(f"the setting {where}{name} is missing")
    return cls(**{key: _value(hints[key], value, where + key) for key, value in settings.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _value(next(a for a in args if a is not type(None)), value, where)
    if is_dataclass(hint):
        if isinstance(value, str) and "name" in {f.name for f in fields(hint)}:
            value = {"name": value}
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must hold settings; got {value!r}")
        return parse(hint, value, f"{where}.")  # type: ignore[arg-type]
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{where} must hold named values; got {value!r}")
        return {key: _value(args[1], item, f"{where}.{key}") for key, item in value.items()}
    return value if hint is Any else _scalar(hint, value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float:
        # YAML reads 1e-3 as a text
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
        raise ConfigError(f"{where} must be a finite number; got {value!r}")
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    words = {int: "a whole number", str: "a text", bool: "true or false"}
    raise ConfigError(f"{where} must be {words[kind]}; got {value!r}")


def plain(value: Any) -> Any:
    """Nested dataclasses and tuples as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def differences(a: Mapping[str, Any], b: Mapping[str, Any], where: str = "") -> list[str]:
    """Dotted keys whose values differ in two nested mappings."""
    found: list[str] = []
    for key in sorted({*a, *b}):
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, f"{where}{key}.")
        elif one != other:
            found.append(where + key)
    return found
