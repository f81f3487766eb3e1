"""Training and evaluation mode of a model's modules, given back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating", "modes_kept"]


@contextmanager
def modes_kept(*models: nn.Module) -> Iterator[None]:
    """Whatever the block does to the modes of `models`, every module ends in the mode it began in.

    Modules may differ among each other: a layer that was frozen in evaluation mode stays so. `train` is
    not called on the way back, so modules that measure something in it do not do so again.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode for all modules of `models` while the block runs, then the mode of each as it was."""
    with modes_kept(*models):
        for model in models:
            model.eval()
        yield
