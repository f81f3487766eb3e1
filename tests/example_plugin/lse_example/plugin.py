"""What the distribution registers. Imports what is heavy inside the hooks, so `lse --help` stays fast."""

from __future__ import annotations

from typing import Any

from lse_core import hookimpl


@hookimpl
def lse_solvers() -> dict[str, Any]:
    """Give the solver for `adapt(..., solver="heavyball")`."""
    from lse_example.solver import HeavyBall

    return {"heavyball": HeavyBall}


@hookimpl
def lse_canonicalizers() -> dict[str, Any]:
    """Give the canonicalizer for `adapt(..., canonicalizer="weigh")`."""
    from lse_example.canonicalizer import Weigh

    return {"weigh": Weigh}


@hookimpl
def lse_warps() -> dict[str, Any]:
    """Give the warps for `adapt(..., warp="alike")`."""
    from lse_example.warp import AlikeWarp

    return {"alike": AlikeWarp}


@hookimpl
def lse_backbones() -> dict[str, Any]:
    """Give the layout of PebbleNet."""
    from lse_example.network import PebbleNetBackbone

    return {"pebblenet": PebbleNetBackbone()}
