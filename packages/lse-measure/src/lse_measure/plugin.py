"""What lse-measure registers; heavy imports wait until the command runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lse_core.plugins import hookimpl


@hookimpl
def lse_commands() -> Mapping[str, Any]:
    """Give the command that measures models."""
    from lse_measure.commands.measure import measure

    return {"measure": measure}
