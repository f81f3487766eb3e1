"""Recipes: tables of experiments, one YAML file each, made of training runs.

Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lse_core.lazy import lazy_names

if TYPE_CHECKING:
    from lse_train.recipes.plan import make_plan
    from lse_train.recipes.results import open_results
    from lse_train.recipes.runner import run_recipe
    from lse_train.recipes.schema import Recipe, read_recipe

_HOMES = {
    "plan": ["make_plan"],
    "results": ["open_results"],
    "runner": ["run_recipe"],
    "schema": ["Recipe", "read_recipe"],
}

__all__ = ["Recipe", "make_plan", "open_results", "read_recipe", "run_recipe"]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
