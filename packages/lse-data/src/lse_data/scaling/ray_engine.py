"""Photographs made by Ray Data, on the cores of this machine or of a cluster.

Needs the extra: `pip install 'lse-data[ray]'`. Ray is started, or joined where RAY_ADDRESS names a cluster.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from lse_core.errors import LSEError
from lse_data.scaling.config import ScalingConfig
from lse_data.scaling.picture import Outcome, Source, make_versions
from lse_data.scaling.stages import build_stages

__all__ = ["ray_outcomes"]

SHARD = 4
"""Photographs that an actor is given at once, and that are made again if it dies."""


class _Maker:
    """An actor of Ray Data, which holds the stages."""

    def __init__(self, config: ScalingConfig, trust: bool, device: str) -> None:
        import cv2

        cv2.setNumThreads(1)
        self.config = config
        self.stages = build_stages(config, trust=trust, device=device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What becomes of photographs."""
        made = np.empty(len(batch["source"]), dtype=object)
        made[:] = [make_versions(source, self.config, self.stages) for source in batch["source"]]
        return {"source": batch["source"], "outcome": made}


def ray_outcomes(
    sources: Sequence[Source], config: ScalingConfig, jobs: int | None, trust: bool, device: str
) -> Iterator[tuple[Source, Outcome]]:
    """What becomes of each photograph, in any order.

    The actors read the photographs, and files that say where objects are, by the paths that are given here,
    so the machines of a cluster need a common file system. What they make comes back through Ray. If an actor
    or its machine dies, its photographs are made again by another.

    Args:
        sources: the photographs, at least one.
        config: what to make.
        jobs: actors at most; None is one for each core of the cluster.
        trust: allow stages to fetch what they are told by name.
        device: where stages run that use torch; each actor has a GPU of its own if it begins with "cuda".

    Raises:
        LSEError: Ray is not installed, or an actor failed in another way than by dying.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise LSEError("--engine ray needs Ray: pip install 'lse-data[ray]'") from error
    with _joined(ray):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        most = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        shards = math.ceil(len(sources) / SHARD)
        given = ray.data.from_items([{"source": source} for source in sources], override_num_blocks=shards)
        made = given.map_batches(
            _Maker,
            fn_constructor_args=(config, trust, device),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(most, shards)),
            num_cpus=1,
            num_gpus=1 if device.startswith("cuda") else 0,
        )
        try:
            for row in made.iter_rows():
                yield row["source"], row["outcome"]
        except (ray.exceptions.RayError, ray.data.exceptions.RayDataUserCodeException) as error:
            told = " ".join(str(error.__cause__ or error).split())
            raise LSEError(
                f"an actor of Ray failed; the same command goes on from here: {told[-300:]}"
            ) from error


@contextmanager
def _joined(ray: Any) -> Iterator[None]:
    """Ray, started and ended here unless the program has it running; it sends no statistics of its use."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what counts arrives as an exception
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
