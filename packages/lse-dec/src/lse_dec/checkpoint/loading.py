"""Reading a checkpoint folder: model.safetensors and config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from lse_core.card import attach, card_of
from lse_core.errors import LSEError, UnknownNameError, unknown_name
from lse_core.plugins import registry
from lse_dec.adaptation import adapt
from lse_dec.adapted import AdaptedModel
from lse_dec.checkpoint.config import NAME, WEIGHTS, CheckpointError, Config
from lse_dec.checkpoint.legacy import RUN
from lse_dec.checkpoint.plain import PLUGINS, from_plain
from lse_dec.checkpoint.reading import read_config
from lse_dec.checkpoint.saving import checksum, told_preprocess
from lse_dec.checkpoint.source import make

__all__ = ["INSIDE", "load", "load_if_ours", "model_folder"]

DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}

INSIDE = ("model", "dec")
"""Where the model lies in the folder of a run and in that of the demo."""


def load(folder: str | Path, model: nn.Module | None = None, *, trust: bool = False) -> Any:
    """Read what `save`, `lse train` or `lse demo` wrote, in eval mode on the CPU (or the device of `model`).

    Nothing in the folder makes this import or call what it names, reach the network or read elsewhere:
    the base is made by timm, or by a function that an installed plugin provides, with keywords that describe
    an architecture and nothing else.

    Args:
        folder: a saved folder, or that of a run or of the demo, which holds one.
        model: the base model; only needed where the config cannot name it (it says so). It is adapted
            in place and its weights are overwritten.
        trust: import and call the function that the config names to make the base, with any keywords.

    Returns:
        The `AdaptedModel`, or a plain module where the model has no canonicalizers. Its card (see
        `lse_core.card_of`) holds preprocessing, class names and what trained it.

    Raises:
        CheckpointError: absent, damaged, truncated or mixed files; a newer format; a plugin that is
            not installed; weights that do not fit the base; a function or keyword that needs trust.
    """
    folder = model_folder(folder)
    config = read_config(folder)
    weights = folder / config.weights.file
    _check_weights(weights, config.weights.sha256)
    made = _rebuilt(folder, config, model, trust)
    try:
        load_model(made, str(weights))
    except SafetensorError as error:
        raise CheckpointError(f"{weights} is damaged: {error}") from error
    except (RuntimeError, OSError) as error:
        base = made.base if isinstance(made, AdaptedModel) else made
        first = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{weights} does not fit {type(base).__name__}: {first}") from error
    attach(
        made,
        preprocess=config.preprocess or told_preprocess(made),
        class_names=config.class_names,
        source=card_of(made).source or config.model.plain(),
        training=config.training,
    )
    return made.eval()


def model_folder(folder: str | Path) -> Path:
    """Where the model lies: `folder` itself, or a folder in that of a run or of the demo.

    Raises:
        CheckpointError: no model in any of these places.
    """
    folder = Path(folder)
    for place in (folder, *(folder / name for name in INSIDE)):
        if any((place / name).is_file() for name in (NAME, WEIGHTS, RUN)):
            return place
    missing = f"there is no folder {folder}" if not folder.is_dir() else f"{folder} holds no {NAME}"
    raise CheckpointError(f"{missing}: give a folder that lse_dec.save or a finished lse train wrote")


def load_if_ours(path: Path, *, trust: bool = False, model: nn.Module | None = None) -> Any:
    """As `load`; None where `path` holds no model that LSE wrote. For the hook `lse_loaders`."""
    try:
        model_folder(path)
    except CheckpointError:
        return None
    return load(path, model, trust=trust)


def _check_weights(path: Path, expected: str | None) -> None:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is no file: copy the folder of the model again")
    try:
        found = checksum(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if expected is not None and found != expected:
        raise CheckpointError(
            f"{path} is not the file that its {NAME} belongs to (by checksum): truncated, changed, or "
            "a save was interrupted; copy both files again"
        )


def _check_plugins(folder: Path, plugins: Mapping[str, str]) -> None:
    for key, distribution in plugins.items():
        kind, _, name = key.partition(":")
        if kind not in PLUGINS.values():
            raise CheckpointError(f"{folder / NAME}: {key!r} is no kind of plugin that a model may ask for")
        try:
            registry().get(kind, name)
        except UnknownNameError as error:
            raise CheckpointError(
                f"{folder} needs the {kind} {name!r}, which no installed package provides. It says that it "
                f"comes from {distribution!r}: install that if you know it. {error}"
            ) from error


def _rebuilt(folder: Path, config: Config, model: nn.Module | None, trust: bool) -> nn.Module:
    if config.adapt is not None:
        _check_plugins(folder, config.adapt.plugins)
    if model is None:
        if config.model.source == "given":
            raise CheckpointError(
                f"{folder} does not tell how to make its base {config.model.name}: "
                "make it and pass it as load(folder, model)"
            )
        try:
            with torch.random.fork_rng(devices=[]):  # the weights are overwritten: no draw of the caller's
                model = make(config.model, trust=trust)
        except LSEError as error:
            raise CheckpointError(f"{folder}: {error}") from error
    try:
        if config.dtype not in DTYPES:
            raise unknown_name("dtype", config.dtype, DTYPES)
        model.to(DTYPES[config.dtype])
        if config.adapt is None:
            return model
        settings = from_plain(config.adapt.settings)
        return adapt(model, config.adapt.sites, mode=config.adapt.mode, **settings)
    except Exception as error:  # whatever modules raise about settings that a stranger wrote
        first = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(f"{folder / NAME} holds settings that do not fit: {first}") from error
