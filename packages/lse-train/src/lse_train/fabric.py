"""Devices, precision and processes, by Lightning Fabric.

Fabric rather than Lightning's Trainer: the Trainer keeps the order of data and the place within an epoch to
itself, and resumes in the middle of one only as well as its loaders do; and two parts with rules of their
own (which learns when, whose gradient is bounded how) would leave of it only what Fabric has.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from lse_core.errors import LSEError
from lse_train.config import ConfigError, RunConfig

__all__ = ["launch", "processes"]

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float64": "64-true"}


def launch(config: RunConfig) -> Any:
    """Fabric for this process: one of torchrun's, or the only one.

    Raises:
        ConfigError: a device that is not here.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise LSEError("training needs more packages: pip install 'lse-train'") from error
    kind = config.device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"device {config.device!r} cannot be used here; try device: cpu")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    options: dict[str, Any] = {"accelerator": kind, "devices": 1}
    if world > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        # a part that does not learn in a phase has no gradient
        strategy = DDPStrategy(
            find_unused_parameters=True, process_group_backend="gloo" if kind == "cpu" else None
        )
        options = {
            "accelerator": kind, "devices": local, "num_nodes": world // local, "strategy": strategy,
        }  # fmt: skip
    fabric = Fabric(precision=PRECISIONS[config.precision], **options)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def processes(fabric: Any) -> int:
    """How many processes train together."""
    return int(fabric.world_size)
