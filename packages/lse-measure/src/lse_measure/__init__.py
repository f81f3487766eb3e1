"""How much any model changes its answer when one object in the picture changes size.

Names load when first used, so that listing the commands need not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names

if TYPE_CHECKING:
    from lse_measure.measurement import Measurement
    from lse_measure.running import measure

__version__ = "0.1.0"

_HOMES = {"measurement": ["Measurement"], "running": ["measure"]}

__all__ = ["Measurement", "measure"]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
