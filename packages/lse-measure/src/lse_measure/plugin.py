"""What lse-measure registers; heavy imports wait until the command runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lse_core.plugins import hookimpl


@hookimpl
def lse_commands() -> Mapping[str, Any]:
    """Give the commands that measure models, and that show them at work."""
    from lse_measure.commands.measure import measure
    from lse_measure.commands.play import play

    return {"measure": measure, "play": play}
