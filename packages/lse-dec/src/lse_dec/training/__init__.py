"""Training of models and canonicalizers: one run from a `RunConfig`, resumable step by step.

Needs `pip install 'lse-dec[train]'`. Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names

if TYPE_CHECKING:
    from lse_dec.training.batch import Batch, Method
    from lse_dec.training.config import ConfigError, RunConfig
    from lse_dec.training.measure import evaluate
    from lse_dec.training.models import load_run
    from lse_dec.training.running import FitResult, RunInterruptedError, fit

_HOMES = {
    "batch": ["Batch", "Method"],
    "config": ["ConfigError", "RunConfig"],
    "running": ["FitResult", "RunInterruptedError", "fit"],
    "measure": ["evaluate"],
    "models": ["load_run"],
}

__all__ = [
    "Batch",
    "ConfigError",
    "FitResult",
    "Method",
    "RunConfig",
    "RunInterruptedError",
    "evaluate",
    "fit",
    "load_run",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
