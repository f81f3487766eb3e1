"""Settings of `adapt` as JSON and back: plugins by name, their own settings as plain values."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from lse_core.errors import LSEError
from lse_core.plugins import registry
from lse_core.settings import build
from lse_dec.checkpoint.config import CheckpointError
from lse_dec.gradients import GRADIENTS

__all__ = ["PLUGINS", "from_plain", "plugins_of", "to_plain"]

PLUGINS = {"canonicalizer": "canonicalizer", "warp": "warp", "rule": "update", "solver": "solver"}
"""Keyword of `adapt` to kind of plugin."""

WHOLE = ("resolution", "segments", "steps", "widths")
LARGEST = 10_000  # of any number among the settings: more would only exhaust time or memory


def to_plain(settings: dict[str, Any]) -> dict[str, Any]:
    """JSON values for `AdaptedModel.settings`.

    Raises:
        LSEError: a value that neither is plain nor comes from a registered plugin.
    """
    return {name: _plain(name, value) for name, value in settings.items()}


def _plain(where: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(where, item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(where, item) for key, item in value.items()}
    name = _registered(PLUGINS.get(where, where), value)
    if name is None:
        raise LSEError(
            f"cannot write the setting {where}={value!r}: register its class as a plugin, and give its name"
        )
    if isinstance(value, type) or not is_dataclass(value):
        return name
    settings = {f.name: _plain(f.name, getattr(value, f.name)) for f in fields(value) if f.init}
    return {"name": name, "settings": settings}


def _registered(kind: str, value: Any) -> str | None:
    """The name under which `value` or its class is registered."""
    known: Any = GRADIENTS.items() if kind == "gradient" else ()
    known = registry().items(kind) if kind in PLUGINS.values() else known
    return next((name for name, thing in known if thing is value or thing is type(value)), None)


def from_plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Keywords for `adapt` from JSON values.

    Raises:
        UnknownNameError: a plugin or setting that nothing provides.
    """
    return {name: _object(name, value) for name, value in settings.items()}


def _object(where: str, value: Any) -> Any:
    if where in PLUGINS and not isinstance(value, str | dict):
        raise CheckpointError(f"setting {where!r} must name a plugin; got {value!r}")
    if isinstance(value, list):
        return tuple(_object(where, item) for item in value)
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise CheckpointError(f"setting {where!r} must be a number within {LARGEST}; got {value!r}")
    if where in WHOLE and value is not None and (type(value) is not int or value < 1):
        raise CheckpointError(f"setting {where!r} must be a whole number of at least 1; got {value!r}")
    if not isinstance(value, dict):
        return value
    if value.keys() != {"name", "settings"} or not isinstance(value["settings"], dict):
        raise CheckpointError(
            f"setting {where!r} must be a plain value, or have a name and settings; got {value!r}"
        )
    kind = PLUGINS.get(where, where)
    if kind not in (*PLUGINS.values(), "gradient"):
        # the registry holds commands and loaders too, which a file has no business to call
        raise CheckpointError(f"setting {where!r} names {value['name']!r}, but it takes plain values only")
    if kind == "gradient":
        if value["name"] not in GRADIENTS:
            raise CheckpointError(f"unknown gradient {value['name']!r}; known: {', '.join(GRADIENTS)}")
        factory = GRADIENTS[value["name"]]
    else:
        factory = registry().get(kind, value["name"])
    return build(factory, **{name: _object(name, item) for name, item in value["settings"].items()})


def plugins_of(plain: dict[str, Any]) -> dict[str, str]:
    """The distribution behind every plugin that plain settings name, {"solver:anderson": "lse-dec"}."""
    found = {}
    for where, kind in PLUGINS.items():
        value = plain.get(where)
        name = value["name"] if isinstance(value, dict) else value
        if isinstance(name, str):
            found[f"{kind}:{name}"] = registry().provider(kind, name)
    return found
