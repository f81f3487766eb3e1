"""Settings of runs and recipes as people write them: YAML within limits, and overrides by dotted keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lse_core.errors import LSEError
from lse_core.settings import Settings, SettingsError, validated

__all__ = ["ConfigError", "differences", "override", "parse", "read_yaml", "set_options"]

S = TypeVar("S", bound=Settings)


class ConfigError(LSEError, ValueError):
    """A run's settings are missing, of the wrong type, out of range, or do not fit together."""


LONGEST = 1_000_000
"""Characters of a YAML text."""

DEEPEST = 64
"""Levels of a YAML text."""

MOST = 100_000
"""Values in a YAML text, those behind an alias counted wherever it stands."""


def read_yaml(path: Any) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: absent, unreadable, no YAML, or no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ConfigError(f"cannot read {path}: {reason}") from error
    found = _loaded(text, str(path))
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold settings as `key: value`; it holds {type(found).__name__}")
    return found


def set_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Overrides from `key=value` texts; values are read as YAML, so lists and mappings work too.

    Raises:
        ConfigError: no `=`, or a value that is no YAML.
    """
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"settings are key=value; got {pair!r}")
        found[key] = _loaded(text, f"the value of {key}")
    return found


def _loaded(text: str, what: str) -> Any:
    """A YAML text as texts, numbers, lists and mappings by texts: what JSON has."""
    if len(text) > LONGEST:
        raise ConfigError(f"{what} is too long: {len(text)} characters; settings have at most {LONGEST}")
    try:
        _check_size(text, what)
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} is not valid YAML: {' '.join(str(error).split())}") from error
    except ConfigError:
        raise
    except (ValueError, OverflowError, RecursionError) as error:  # a 13th month, a number of 5000 digits
        raise ConfigError(f"{what} has a value that cannot be read: {error}") from error
    _check_plain(found, what)
    return found


def _check_size(text: str, what: str) -> None:
    """Refuse, before any of it is built, what is nested too deeply or grows too large by its aliases."""
    sizes: dict[str, int] = {}  # of what the anchors name
    opened: list[tuple[str | None, int]] = []  # anchors of the collections around, and values before them
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
            if event.anchor:
                sizes.pop(event.anchor, None)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in opened):
                raise ConfigError(f"{what}: *{event.anchor} stands within itself; write its values out")
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
        if len(opened) > DEEPEST:
            raise ConfigError(f"{what} is nested too deeply; settings have at most {DEEPEST} levels")
        if total > MOST:
            raise ConfigError(f"{what} holds too much, aliases counted; settings have at most {MOST} values")


def _check_plain(value: Any, what: str, where: str = "") -> None:
    """Refuse what YAML reads as a date, a set or bytes, and keys that are no texts."""
    at = f"{what}: {where}" if where else what
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{at} has the key {_short(key)}, which is not text; put it in quotes")
            _check_plain(item, what, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_plain(item, what, f"{where}[{i}]")
    elif not isinstance(value, str | int | float | None):
        raise ConfigError(
            f"{at} is read as a {type(value).__name__}, which "
            f"cannot be a setting; put it in quotes to make it text"
        )
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{at} is a whole number beyond 2**63; give a smaller one")


def _short(value: Any) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


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
                raise ConfigError(f"cannot set {dotted}: {part} is {_short(inner)}, which has no parts")
            place[part] = inner
            place = inner
        place[last] = value
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def parse(
    cls: type[S], settings: Mapping[str, Any], where: str = "", error: type[LSEError] = ConfigError
) -> S:
    """As `lse_core.settings.validated`, but what is missing, wrong or out of range is an `error`."""
    try:
        return validated(cls, settings, where)
    except SettingsError as found:
        raise error(str(found)) from found


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
