"""What an interrupted training of mmengine's needs to go on as if it had not been interrupted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from lse_core.atomic import replacing

__all__ = ["RandomStateHook", "WholeFiles", "latest_checkpoint", "write_whole"]

KEY = "random_state"
"""Of the checkpoint's entry with the states of all random number generators."""


class WholeFiles(LocalBackend):
    """mmengine's files on disk, each of which appears whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, over an earlier one, and make its folder if absent."""
        with replacing(Path(filepath), overwrite=True) as partial:
            partial.write_bytes(obj)


register_backend("whole_files", WholeFiles, force=True)


class RandomStateHook(Hook):
    """Keeps the states of random number generators in checkpoints, and goes on from them when resumed.

    mmengine keeps a seed alone, so that a training that is resumed draws other augmentations and other
    dropout than one that was not interrupted.
    """

    state: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the states to the checkpoint."""
        # the generator that mmengine's transforms use; its first entry is its name
        numpy: Any = np.random.get_state()  # noqa: NPY002
        checkpoint[KEY] = {
            "python": random.getstate(),
            "numpy": [numpy[1].tolist(), *numpy[2:]],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Remember the states that the checkpoint holds; one of another program holds none."""
        self.state = checkpoint.get(KEY)

    def before_train(self, runner: Runner) -> None:
        """Put the states back, once the loop has skipped the batches that were trained on before."""
        state, self.state = self.state, None
        loop: Any = runner.train_loop
        if state is None or not loop.iter:  # weights to begin with are no training to go on with
            return
        if hasattr(loop, "dataloader_iterator"):
            loop.dataloader_iterator = _after(loop.dataloader_iterator, loop.iter, state)
        else:
            _restore(state)


def _after(batches: Iterator[Any], skipped: int, state: dict[str, Any]) -> Iterator[Any]:
    """The same batches; the states are put back before the first that is not skipped."""
    for _ in range(skipped):
        yield next(batches)
    _restore(state)
    yield from batches


def _restore(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(("MT19937", *state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])


def write_whole(runner: Runner) -> None:
    """Let the checkpoints of `runner` appear whole or not at all, unless its config names a place of its own.

    Where one checkpoint is kept, two are from now on: mmengine removes the earlier one before it writes the
    next, and would leave none if it were interrupted in between.
    """
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.backend_args is None:
            hook.backend_args = {"backend": "whole_files"}
            hook.max_keep_ckpts = 2 if hook.max_keep_ckpts == 1 else hook.max_keep_ckpts


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint in `work_dir` to go on from: the one that `last_checkpoint` names, else the newest.

    mmengine trusts the note alone, which an interrupt may leave empty, and which names a folder that may
    have been moved since. None where there is no checkpoint.
    """
    folder = Path(work_dir)
    note = folder / "last_checkpoint"
    named = Path(note.read_text(encoding="utf-8").strip()) if note.is_file() else folder
    if named.is_file():
        return named
    found = [path for kind in ("iter", "epoch") for path in folder.glob(f"{kind}_*.pth")]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
