"""Configs by name, and mmengine's Runner on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.runner import Runner

from lse_core.errors import LSEError, unknown_name
from lse_seg.resuming import RandomStateHook, latest_checkpoint, write_whole

__all__ = ["config_names", "load_config", "make_runner", "set_data"]

_CONFIGS = Path(__file__).parent / "configs"


def config_names() -> list[str]:
    """Names of the configs that come with the package, such as "segformer_dec"."""
    return sorted(path.stem for path in _CONFIGS.glob("*.py") if not path.stem.startswith("_"))


def load_config(config: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config.

    Args:
        config: one of `config_names()`, or a file.
        options: values by dotted path that replace the config's, as mmengine's --cfg-options.

    Raises:
        UnknownNameError: neither a file nor the name of a config.
        LSEError: mmengine cannot read it.
    """
    path = Path(config)
    if path.suffix != ".py":
        if str(config) not in config_names():
            raise unknown_name("config", str(config), config_names(), "Or give a file.")
        path = _CONFIGS / f"{config}.py"
    if not path.is_file():
        raise LSEError(f"{path}: no such config; give a file or one of {', '.join(config_names())}")
    try:
        found = Config.fromfile(str(path))
        found.merge_from_dict(dict(options or {}))
    except Exception as error:  # a config is code, and fails in any way code does
        text = " ".join(str(error).split())[:300]
        raise LSEError(f"{path} cannot be read as a config ({type(error).__name__}: {text})") from error
    return found


def set_data(config: Config, root: str | Path) -> None:
    """Point the loaders of `config` to `root`, and its heads to the classes found there.

    Weights of classes keep that of the background, the first, and the last one for all others.

    Args:
        config: one that reads `ScaledObjectsDataset`s; changed in place.
        root: what `lse data make-objects` wrote.

    Raises:
        DataError: no finished data set there.
    """
    from lse_seg.dataset import ScaledObjectsDataset

    for part in ("train", "val", "test"):
        loader = config.get(f"{part}_dataloader")
        if loader is not None:
            loader.dataset.data_root = str(root)
    dataset = ScaledObjectsDataset(str(root), "test", pipeline=[], lazy_init=True)
    classes = len(dataset.metainfo["classes"])
    heads = [config.model.decode_head, config.model.get("auxiliary_head") or []]
    for head in [h for found in heads for h in (found if isinstance(found, list) else [found])]:
        head.num_classes = classes
        weights = head.get("loss_decode", {}).get("class_weight")
        if weights is not None:
            head.loss_decode.class_weight = [weights[0], *[weights[-1]] * (classes - 1)]


def make_runner(config: Config, work_dir: str | Path, *, resume: bool = False) -> Runner:
    """mmengine's Runner for `config`, its files under `work_dir`.

    A checkpoint appears whole or not at all, and holds the states of all random number generators. So a
    training that was interrupted in any way, and is resumed, ends with the weights of one that was not (on a
    GPU up to the order of its sums). SIGINT and SIGTERM end the process as they end any Python program,
    with the shell's status 130 or 143; what was learnt since the last checkpoint is learnt again.

    Args:
        config: see `load_config`.
        work_dir: checkpoints and logs go there; `resume` goes on from the last checkpoint in it.
        resume: go on where training stopped, optimiser and schedule included; begin where there is no
            checkpoint yet.
    """
    config.work_dir = str(work_dir)
    config.resume = resume
    if resume and config.get("load_from") is None:
        found = latest_checkpoint(work_dir)
        config.load_from = None if found is None else str(found)
    runner: Runner = Runner.from_cfg(config)
    runner.register_hook(RandomStateHook())
    write_whole(runner)
    return runner
