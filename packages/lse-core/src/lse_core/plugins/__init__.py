"""Plugins: how every solver, backbone, exporter and command, built in or not, is found by name."""

from lse_core.plugins.hookspecs import hookimpl
from lse_core.plugins.manager import KINDS, PluginInfo, PluginWarning, Registry, registry

__all__ = ["KINDS", "PluginInfo", "PluginWarning", "Registry", "hookimpl", "registry"]
