"""The registry: it loads every plugin once and finds what plugins provide by kind and name."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import click
import pluggy

from lse_core.errors import LSEWarning, PluginError, UnknownNameError, unknown_name
from lse_core.plugins import hookspecs
from lse_core.plugins.discovery import Candidate, Selection, candidates, is_strict, one_line

KINDS = (
    *("warp", "solver", "update", "canonicalizer", "backbone"),
    *("dataset", "group", "command", "check", "loader", "method", "model"),
    *("detector", "segmenter", "inpainter"),
)
"""What plugins provide; kind "solver" is asked for through the hook `lse_solvers`, and so on."""

RETIRED = {"exporter": "a command of its own, through the hook `lse_commands`, takes its place"}
"""Kinds that earlier versions had: a plugin that still provides one loads, and a warning says this."""


class PluginWarning(LSEWarning):
    """A plugin is broken and was left out, or `LSE_PLUGINS` names one that is not installed."""


@dataclass(frozen=True)
class PluginInfo:
    """One plugin as `lse plugins` shows it.

    Attributes:
        name: name of its entry point, or the name it was registered under.
        distribution: the installed package it comes from.
        version: that package's version.
        status: "ok"; "failed" where loading it or one of its hooks raised; "blocked" by `LSE_PLUGINS`.
        error: one line on why it failed, else "".
        provides: names it provides, by kind; also those of a failed plugin's hooks that did work.
    """

    name: str
    distribution: str
    version: str
    status: Literal["ok", "failed", "blocked"]
    error: str = ""
    provides: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class _Plugin:
    """One plugin: who it is, what went wrong with it, and the objects that its hooks have given so far."""

    name: str
    distribution: str
    version: str
    blocked: bool = False
    errors: list[str] = field(default_factory=list)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)

    def fail(self, reason: str, strict: bool, cause: BaseException | None = None) -> None:
        """Record a fault: raise it in strict mode, else warn at the plugin's first one."""
        message = f"plugin {self.name!r} of {self.distribution} {self.version} is broken: {reason}"
        if strict:
            raise PluginError(message) from cause
        self.errors.append(reason)
        if len(self.errors) == 1:
            warnings.warn(message, PluginWarning, stacklevel=2)

    def info(self) -> PluginInfo:
        """Describe the plugin, as far as its hooks have been called."""
        provides = {kind: tuple(sorted(found)) for kind, found in self.objects.items() if found}
        status: Literal["ok", "failed", "blocked"] = (
            "blocked" if self.blocked else "failed" if self.errors else "ok"
        )
        error = "; ".join(self.errors)
        return PluginInfo(self.name, self.distribution, self.version, status, error, provides)


class Registry:
    """Objects that plugins provide, by kind and name.

    Nothing is imported before the first question, and then once; a hook is called when its kind is first
    asked for, so a command line need not wait for solvers. A plugin that cannot be loaded, or whose hook
    raises, is left out with a `PluginWarning` and affects no other; with `LSE_PLUGINS_STRICT=1` it raises
    `PluginError`. Safe to use from several threads.

    Args:
        environ: where to read `LSE_PLUGINS` and `LSE_PLUGINS_STRICT`; None is `os.environ`.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._lock = threading.RLock()
        self._loaded: list[_Plugin] | None = None
        self._manager = pluggy.PluginManager("lse")  # `_load` fills it

    def get(self, kind: str, name: str) -> Any:
        """Return what provides `name` of `kind`.

        Raises:
            UnknownNameError: nothing provides it, or there is no such kind; names the closest match.
            PluginError: two plugins provide it; names both distributions.
        """
        return self._only_provider(kind, name)[1]

    def provider(self, kind: str, name: str) -> str:
        """Return the distribution that provides `name` of `kind`; raises as `get` does."""
        return self._only_provider(kind, name)[0].distribution

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of `kind`, sorted, without those that two plugins claim."""
        return tuple(name for name, _ in self.items(kind))

    def items(self, kind: str) -> tuple[tuple[str, Any], ...]:
        """Return (name, object) pairs of `kind`, sorted by name, without names that two plugins claim."""
        found = self._providers(kind)
        return tuple((name, found[name][0][1]) for name in sorted(found) if len(found[name]) == 1)

    def plugins(self) -> tuple[PluginInfo, ...]:
        """Describe every installed or registered plugin; calls all hooks to do so."""
        for kind in KINDS:
            self._providers(kind)
        return tuple(plugin.info() for plugin in self._load())

    def conflicts(self) -> tuple[str, ...]:
        """Return one line for every name that two plugins claim."""
        return tuple(
            _conflict(kind, name, claims)
            for kind in KINDS
            for name, claims in sorted(self._providers(kind).items())
            if len(claims) > 1
        )

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin of this process: an object or module whose methods are marked `hookimpl`.

        Raises:
            PluginError: the name is taken, or the plugin implements a hook that does not exist.
        """
        with self._lock:
            loaded = self._load()
            if any(other.name == name for other in loaded):
                raise PluginError(f"a plugin named {name!r} is registered already; choose another name")
            added = _Plugin(name, name, "(this process)")
            try:
                self._attach(added, plugin)
            except (UnknownNameError, pluggy.PluginValidationError, ValueError, TypeError) as error:
                raise PluginError(f"plugin {name!r} is broken: {one_line(error)}") from error
            loaded.append(added)

    def unregister(self, name: str) -> None:
        """Remove the plugin `name` and all it provides from this registry.

        Raises:
            UnknownNameError: no plugin has that name.
        """
        with self._lock:
            loaded = self._load()
            for plugin in loaded:
                if plugin.name == name:
                    loaded.remove(plugin)
                    if self._manager.has_plugin(name):  # one that is broken or blocked is not there
                        self._manager.unregister(name=name)
                    return
            raise unknown_name("plugin", name, [plugin.name for plugin in loaded])

    def _load(self) -> list[_Plugin]:
        with self._lock:
            if self._loaded is None:
                self._loaded = []  # first, so that a plugin which asks at import does not recurse
                self._manager = pluggy.PluginManager("lse")
                self._manager.add_hookspecs(hookspecs)
                try:
                    self._loaded.extend(self._discover())
                except BaseException:
                    self._loaded = None
                    raise
            return self._loaded

    def _discover(self) -> Iterator[_Plugin]:
        found = candidates()
        chosen = Selection(self._environ.get("LSE_PLUGINS", ""))
        for name in chosen.unmatched(found):
            known = ", ".join(candidate.name for candidate in found)
            text = f"LSE_PLUGINS names {name!r}, which no installed plugin is called; installed: {known}"
            warnings.warn(text, PluginWarning, stacklevel=2)
        for candidate in found:
            plugin = _Plugin(candidate.name, candidate.distribution, candidate.version)
            if chosen.permits(candidate):
                self._import(plugin, candidate)
            else:
                plugin.blocked = True
            yield plugin

    def _import(self, plugin: _Plugin, candidate: Candidate) -> None:
        if candidate.entry_point is None:
            plugin.fail(candidate.error, is_strict(self._environ))
            return
        try:
            self._attach(plugin, candidate.entry_point.load())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a module does when it is imported
            plugin.fail(one_line(error), is_strict(self._environ), error)

    def _attach(self, plugin: _Plugin, implementation: object) -> None:
        """Take the hooks of `implementation`, or raise and take none where one of them fits no hook."""
        try:
            self._manager.register(implementation, plugin.name)
            for hook in self._manager.get_hookcallers(implementation) or ():
                kind = hook.name.removeprefix("lse_").removesuffix("s")
                if kind in RETIRED:
                    text = (
                        f"plugin {plugin.name!r} of {plugin.distribution} implements the hook {hook.name!r}"
                    )
                    warnings.warn(f"{text}, which is not used any more: {RETIRED[kind]}", PluginWarning, 3)
                elif not hook.has_spec():
                    raise unknown_name("hook", hook.name, [f"lse_{kind}s" for kind in KINDS])
        except BaseException:
            if self._manager.has_plugin(plugin.name):
                self._manager.unregister(name=plugin.name)
            raise

    def _objects(self, plugin: _Plugin, kind: str) -> dict[str, Any]:
        """What `plugin` gives of `kind`; its hook is called on first use, and gives nothing if it raises."""
        if kind not in plugin.objects:
            plugin.objects[kind] = {}  # first, so that a hook which asks the registry does not recurse
            hook = f"lse_{kind}s"
            try:
                for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                    if implementation.plugin_name == plugin.name:
                        plugin.objects[kind].update(_checked(kind, implementation.function()))
            except BaseException as error:
                del plugin.objects[kind]
                if isinstance(error, KeyboardInterrupt):
                    raise
                plugin.fail(f"{hook}: {one_line(error)}", is_strict(self._environ), error)
                plugin.objects[kind] = {}
        return plugin.objects[kind]

    def _providers(self, kind: str) -> dict[str, list[tuple[_Plugin, Any]]]:
        if kind not in KINDS:
            raise unknown_name("plugin kind", kind, KINDS, RETIRED.get(kind, ""))
        found: dict[str, list[tuple[_Plugin, Any]]] = {}
        with self._lock:
            for plugin in list(self._load()):
                for name, value in self._objects(plugin, kind).items():
                    found.setdefault(name, []).append((plugin, value))
        return found

    def _only_provider(self, kind: str, name: str) -> tuple[_Plugin, Any]:
        found = self._providers(kind)
        claims = found.get(name, [])
        if not claims:
            raise unknown_name(kind, name, found, self._absences())
        if len(claims) > 1:
            raise PluginError(_conflict(kind, name, claims))
        return claims[0]

    def _absences(self) -> str:
        """Say which plugins do not contribute, one of which may be where a missing name lives."""
        notes = []
        for info in (plugin.info() for plugin in self._load()):
            if info.status == "failed":
                notes.append(f"Plugin {info.name!r} of {info.distribution} failed: {info.error}.")
            elif info.status == "blocked":
                notes.append(f"Plugin {info.name!r} of {info.distribution} is blocked by LSE_PLUGINS.")
        return " ".join(notes)


@cache
def registry() -> Registry:
    """Return the registry of this process."""
    return Registry()


def _checked(kind: str, mapping: object) -> Mapping[str, Any]:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"returned {type(mapping).__name__}, not a mapping from name to object")
    for name, value in mapping.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"returned the name {name!r}, not a non-empty string")
        if kind == "command" and not isinstance(value, click.Command):
            raise TypeError(f"{name!r} is {type(value).__name__}, not a click.Command")
    return mapping


def _conflict(kind: str, name: str, claims: list[tuple[_Plugin, Any]]) -> str:
    owners = " and ".join(f"{plugin.distribution} ({plugin.name})" for plugin, _ in claims)
    return f"{kind} {name!r} is provided by {owners}; block one, as in LSE_PLUGINS=-{claims[-1][0].name}"
