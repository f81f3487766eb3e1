"""What lse-train registers; heavy imports wait until a hook is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lse_core.plugins import hookimpl


@hookimpl
def lse_datasets() -> Mapping[str, Any]:
    """Give the locally scaled digits and scenes, and readers of folders."""
    from lse_train.data import build_digits, build_image_folder, build_scaled_folder, build_scenes
    from lse_train.data.folder import Pictures

    return {
        "digits": build_digits,
        "image_folder": build_image_folder,
        "pictures": Pictures,
        "scaled_folder": build_scaled_folder,
        "scenes": build_scenes,
    }


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
    """Give the commands for training, data and the demo."""
    from lse_train.commands.data import data
    from lse_train.commands.demo import demo
    from lse_train.commands.evaluate import evaluate
    from lse_train.commands.make_objects import make_objects
    from lse_train.commands.train import train

    return {
        "data": data,
        "data make-objects": make_objects,
        "demo": demo,
        "evaluate": evaluate,
        "train": train,
    }
