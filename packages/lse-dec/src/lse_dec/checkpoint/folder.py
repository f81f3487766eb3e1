"""Writing and reading a checkpoint folder: model.safetensors and config.json."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from lse_core.errors import LSEError, OutputError, UnknownNameError
from lse_core.plugins import registry
from lse_dec.adaptation import AdaptedModel, adapt
from lse_dec.checkpoint.config import NAME, CheckpointError, Config
from lse_dec.checkpoint.plain import from_plain, plugins_of, to_plain
from lse_dec.checkpoint.source import describe, rebuild

__all__ = ["WEIGHTS", "load", "save"]

WEIGHTS = "model.safetensors"


def save(model: AdaptedModel, folder: str | Path, *, model_kwargs: Mapping[str, Any] | None = None) -> Path:
    """Write an adapted model: `model.safetensors` and a readable `config.json`, never pickle.

    Both files are complete before either takes its place, and the config names the weights by their
    checksum, so an interrupted save leaves the old checkpoint or one that `load` refuses.

    Args:
        model: what `lse_dec.adapt` returned.
        folder: where to write; made if absent, other files in it stay.
        model_kwargs: the keywords the base was made with by `timm.create_model`, needed where more than
            classes, channels, image size and pooling was changed; a loaded model knows its own. Without
            them such a model is written too, but `load` must be given the base.

    Returns:
        The folder.

    Raises:
        LSEError: not an adapted model, or a setting that is neither plain nor a registered plugin.
        CheckpointError: `model_kwargs` do not give this base.
        OutputError: the folder cannot be written.
    """
    if not isinstance(model, AdaptedModel) or not model.names:
        raise LSEError(f"save takes what lse_dec.adapt returned; got {type(model).__name__}")
    settings = to_plain(model.settings)
    source = _described(model, model_kwargs)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
            weights, config = Path(temporary) / WEIGHTS, Path(temporary) / NAME
            # save_model knows tied weights, which plain safetensors refuse
            save_model(model, str(weights), metadata={"format": "pt"})
            text = Config(
                lse_dec=metadata.version("lse-dec"),
                model=source,
                sites=list(model.names),
                mode=model.mode,
                settings=settings,
                dtype=str(dtype).removeprefix("torch."),
                weights={"file": WEIGHTS, "sha256": _checksum(weights)},
                plugins=plugins_of(settings),
            ).text()
            config.write_text(text, encoding="utf-8")
            for path in (weights, config):
                os.replace(path, folder / path.name)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def load(folder: str | Path, model: nn.Module | None = None) -> AdaptedModel:
    """Read what `save` wrote, in eval mode on the CPU (or on the device of `model`).

    Args:
        folder: a folder written by `save`.
        model: the base model; only needed where the config cannot name it (it says so). It is adapted
            in place and its weights are overwritten.

    Raises:
        CheckpointError: absent, damaged, truncated or mixed files; a newer format; a plugin that is
            not installed; weights that do not fit the base.
    """
    folder = Path(folder)
    config = Config.read(folder)
    weights = folder / config.weights["file"]
    _check_weights(weights, config.weights["sha256"])
    _check_plugins(folder, config.plugins)
    adapted = _rebuilt(folder, config, model)
    try:
        load_model(adapted, str(weights))
    except SafetensorError as error:
        raise CheckpointError(f"{weights} is damaged: {error}") from error
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{weights} does not fit {type(adapted.base).__name__}: {first}") from error
    return adapted.eval()


def _described(model: AdaptedModel, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    # the sites are lifted out while the base is compared with its rebuild
    with model.without_sites() as base:
        return describe(base, kwargs, model.made_with)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_weights(path: Path, expected: str) -> None:
    try:
        found = _checksum(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if found != expected:
        raise CheckpointError(
            f"{path} is not the file that its {NAME} belongs to (checksum): truncated, changed, or "
            "a save was interrupted; copy both files again"
        )


def _check_plugins(folder: Path, plugins: Mapping[str, str]) -> None:
    for key, distribution in plugins.items():
        kind, _, name = key.partition(":")
        try:
            registry().get(kind, name)
        except UnknownNameError as error:
            raise CheckpointError(
                f"{folder} needs the {kind} {name!r} of {distribution}: pip install {distribution}. {error}"
            ) from error


def _rebuilt(folder: Path, config: Config, model: nn.Module | None) -> AdaptedModel:
    if model is None:
        if config.model["source"] != "timm":
            raise CheckpointError(
                f"{folder} does not tell how to make its base {config.model['class']}: "
                "make it and pass it as load(folder, model)"
            )
        try:
            model = rebuild(config.model)
        except Exception as error:
            first = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise CheckpointError(
                f"timm cannot make {config.model['name']!r} of {folder}: {first}"
            ) from error
    try:
        dtype = getattr(torch, config.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise CheckpointError(f"unknown dtype {config.dtype!r}")
        model.to(dtype)
        settings = from_plain(config.settings)
        adapted = adapt(model, config.sites, mode=config.mode, **settings)
    except (LSEError, TypeError) as error:
        raise CheckpointError(f"{folder / NAME} does not fit: {error}") from error
    adapted.made_with = config.model.get("kwargs")
    return adapted
