"""What the distribution registers. Imports what is heavy inside the hooks, so `lse --help` stays fast."""

from __future__ import annotations

from typing import Any

from lse_core.plugins import hookimpl


@hookimpl
def lse_solvers() -> dict[str, Any]:
    """Give the solver for `adapt(..., solver="aitken")`."""
    from lse_example import Aitken

    return {"aitken": Aitken}


@hookimpl
def lse_canonicalizers() -> dict[str, Any]:
    """Give the canonicalizer for `adapt(..., canonicalizer="glance")`."""
    from lse_example import Glance

    return {"glance": Glance}


@hookimpl
def lse_backbones() -> dict[str, Any]:
    """Give the layout of PatchNet."""
    from lse_example import PatchNetBackbone

    return {"patchnet": PatchNetBackbone()}
