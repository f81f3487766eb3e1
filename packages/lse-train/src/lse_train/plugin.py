"""What lse-train registers; heavy imports wait until a hook is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lse_core.plugins import hookimpl


@hookimpl
def lse_datasets() -> Mapping[str, Any]:
    """Give digits whose factors are undone, the ceiling of what canonicalizers can reach."""
    from lse_train.true_scales import build_true_scales

    return {"true_scales": build_true_scales}


@hookimpl
def lse_methods() -> Mapping[str, Any]:
    """Give the task alone, Eq. 5 alone, and the paper's methods."""
    from lse_train.methods import METHODS

    return METHODS


@hookimpl
def lse_models() -> Mapping[str, Any]:
    """Give the classifiers of numbers that the recipes and the demo train."""
    from lse_train.numbers import demo_model, number_model

    return {"demo_numbers": demo_model, "numbers": number_model}


@hookimpl
def lse_commands() -> Mapping[str, Any]:
    """Give the commands for training, measuring and the demo."""
    from lse_train.commands.demo import demo
    from lse_train.commands.evaluate import evaluate
    from lse_train.commands.train import train

    return {"demo": demo, "evaluate": evaluate, "train": train}
