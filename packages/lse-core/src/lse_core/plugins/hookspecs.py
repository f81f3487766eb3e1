"""What a plugin may provide: one hook for each kind, which returns a mapping from name to object."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("lse")
hookimpl = pluggy.HookimplMarker("lse")


@hookspec
def lse_warps() -> Mapping[str, Any]:
    """Warps by name: classes like `lse_core.SeparableWarp`."""


@hookspec
def lse_solvers() -> Mapping[str, Any]:
    """Fixed-point solvers by name, as `adapt(..., solver=name)` takes them."""


@hookspec
def lse_updates() -> Mapping[str, Any]:
    """Update rules by name, as `adapt(..., rule=name)` takes them."""


@hookspec
def lse_canonicalizers() -> Mapping[str, Any]:
    """Canonicalizers by name, as `adapt(..., canonicalizer=name)` takes them."""


@hookspec
def lse_backbones() -> Mapping[str, Any]:
    """Backbones by name of the family: where the stages are and how their feature maps are laid out."""


@hookspec
def lse_datasets() -> Mapping[str, Any]:
    """Data sets by name, as `data: {name: NAME}` of a run takes them."""


@hookspec
def lse_groups() -> Mapping[str, Any]:
    """Groups for soft equivariance by name: classes like `lse_soft.groups.Rotation`."""


@hookspec
def lse_commands() -> Mapping[str, click.Command]:
    """Subcommands of `lse` by name; "data NAME" adds one to `lse data`. Import slow modules inside them."""


@hookspec
def lse_checks() -> Mapping[str, Callable[[], str]]:
    """Checks of the installation for `lse doctor`: each returns one line of text or raises LSEError."""


@hookspec
def lse_loaders() -> Mapping[str, Callable[..., Any]]:
    """Loaders of trained models: `loader(path, trust=...)` returns a module, or None if another wrote it."""


@hookspec
def lse_methods() -> Mapping[str, Any]:
    """Training methods by name, as `method: {name: NAME}` of a run takes them: classes with a `loss`."""


@hookspec
def lse_models() -> Mapping[str, Callable[..., Any]]:
    """Functions that build a model from keywords. Any checkpoint may call them: keep them harmless."""


@hookspec
def lse_detectors() -> Mapping[str, Callable[..., Any]]:
    """Detectors by name: called with settings they give a function from a `Shot` to marks of its objects."""


@hookspec
def lse_segmenters() -> Mapping[str, Callable[..., Any]]:
    """Segmenters by name: called with settings they give a function from a picture and boxes to masks."""


@hookspec
def lse_inpainters() -> Mapping[str, Callable[..., Any]]:
    """Inpainters by name: called with settings they give a function from picture and hole to a picture."""
