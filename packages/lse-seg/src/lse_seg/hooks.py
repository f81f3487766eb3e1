"""Hooks of mmengine: the model for the metric that asks twice, and pictures of what a canonicalizer does."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner.amp import autocast
from mmseg.registry import HOOKS

from lse_seg.metrics import EquivarianceError

__all__ = ["EquivarianceHook"]


@HOOKS.register_module()
class EquivarianceHook(Hook):
    """Gives the model to every `EquivarianceError` of the running validation or test loop.

    The second question is asked as the loop asks the first: the same weights (an EMA's too) and, where the
    loop runs in half precision, under the same autocast.
    """

    def before_val_epoch(self, runner: Any) -> None:
        """Give it to the metrics of the validation loop."""
        self._give(runner, runner.val_loop, "val_step")

    def before_test_epoch(self, runner: Any) -> None:
        """Give it to the metrics of the test loop."""
        self._give(runner, runner.test_loop, "test_step")

    def _give(self, runner: Any, loop: Any, step: str) -> None:
        def ask(batch: dict[str, Any]) -> Any:
            with autocast(enabled=getattr(loop, "fp16", False)):
                return getattr(runner.model, step)(batch)

        for metric in getattr(loop.evaluator, "metrics", ()):
            if isinstance(metric, EquivarianceError):
                metric.ask = ask
