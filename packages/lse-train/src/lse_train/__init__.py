"""Training of models and canonicalizers: one run from a `RunConfig`, resumable step by step.

Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names

if TYPE_CHECKING:
    from lse_train.batch import Batch, Method
    from lse_train.config import ConfigError, RunConfig
    from lse_train.measure import evaluate
    from lse_train.models import load_run
    from lse_train.running import FitResult, RunInterruptedError, fit

__version__ = "0.1.0"

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

_MOVED = {
    "commands.data": "lse_data.commands.data",
    "commands.make_objects": "lse_data.commands.make_objects",
    "commands.options": "lse_data.commands.options",
    "data": "lse_data",
    "fields": "lse_data.fields",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES, _MOVED)
