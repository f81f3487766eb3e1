"""Writing a checkpoint folder: model.safetensors and config.json."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import nn

from lse_core.atomic import replacing, usual_mode
from lse_core.card import card_of, check_class_names
from lse_core.errors import LSEError, OutputError
from lse_core.preprocess import Preprocess, channels_and_size, preprocess_of
from lse_core.settings import validated
from lse_dec.checkpoint.config import NAME, WEIGHTS, Adapt, Config, Weights
from lse_dec.checkpoint.plain import plugins_of, to_plain
from lse_dec.checkpoint.reading import read_config
from lse_dec.checkpoint.source import describe

__all__ = ["checksum", "retell", "save", "told_preprocess"]


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
    training: Mapping[str, Any] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model: `model.safetensors` and a readable `config.json`, never pickle.

    Both files are complete before either takes its place, and the config names the weights by their
    checksum, so an interrupted save leaves the old checkpoint or one that `load` refuses.

    Args:
        model: what `lse_dec.adapt` returned, or a model without canonicalizers.
        folder: where to write; made if absent, other files in it stay.
        preprocess: how the model wants its pictures; None takes what its card says, else timm's data
            config. It goes along into every later step: evaluating, exporting, predicting.
        class_names: of the model's outputs, in order; None takes what its card says.
        training: what trained it, as plain values; None takes what its card says.
        model_kwargs: the keywords the base was made with by `timm.create_model`, needed where more than
            classes, channels, image size and pooling was changed; a loaded model knows its own. Without
            them such a model is written too, but `load` must be given the base.

    Returns:
        The folder.

    Raises:
        LSEError: an adapted model that was unadapted, or a setting that is neither plain nor a registered
            plugin.
        CheckpointError: `model_kwargs` do not give this base.
        OutputError: the folder cannot be written.
    """
    sites: Any = model if hasattr(model, "without_sites") else None  # what an adapted model is known by
    if not isinstance(model, nn.Module) or (sites is not None and not sites.names):
        raise LSEError(f"save takes a torch module that was not unadapted; got {type(model).__name__}")
    adapted = None
    if sites is not None:
        settings = to_plain(sites.settings)
        adapted = Adapt(
            sites=tuple(sites.names), mode=sites.mode, settings=settings, plugins=plugins_of(settings)
        )
    # the sites are lifted out while the base is compared with its rebuild
    with nullcontext(model) if sites is None else sites.without_sites() as base:
        source = describe(base, model_kwargs)
        card = card_of(base)
        known = preprocess or told_preprocess(base)
    names = class_names if class_names is not None else card.class_names
    told = training if training is not None else card.training
    _check_facts(base, preprocess, names, told)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
            weights, config = Path(temporary) / WEIGHTS, Path(temporary) / NAME
            # save_model knows tied weights, which plain safetensors refuse
            save_model(model, str(weights), metadata={"format": "pt"})
            values = {
                "lse_dec": metadata.version("lse-dec"),
                "model": source,
                "adapt": adapted,
                "preprocess": known,
                "class_names": names,
                "training": told,
                "dtype": str(dtype).removeprefix("torch."),
                "weights": Weights(file=WEIGHTS, sha256=checksum(weights)),
            }
            config.write_text(validated(Config, values, "save").text(), encoding="utf-8")
            for path in (weights, config):
                usual_mode(path)
                os.replace(path, folder / path.name)
    except (OSError, SafetensorError) as error:  # the latter of the system too, in the writer's words
        raise OutputError(f"cannot write {folder}: {getattr(error, 'strerror', None) or error}") from error
    return folder


def _check_facts(base: nn.Module, preprocess: Preprocess | None, names: Any, training: Any) -> None:
    """Refuse facts that cannot be about this model, or cannot be written."""
    channels, _ = channels_and_size(base)
    if preprocess is not None and channels not in (None, preprocess.channels):
        raise LSEError(
            f"the preprocessing is for {preprocess.channels} channels, and the model takes {channels}"
        )
    if isinstance(names, str):
        raise LSEError(f"class_names must be a list of names; got the text {names!r}")
    check_class_names(base, names)
    try:
        json.dumps(training)
    except (TypeError, ValueError, RecursionError) as error:
        raise LSEError(f"training must be plain values, as JSON has them: {error}") from error


def retell(folder: Path, training: Mapping[str, Any]) -> None:
    """Replace what the config in `folder` says about the training and leave the rest as it is.

    Raises:
        CheckpointError: there is no checkpoint.
        OutputError: the config cannot be written.
    """
    config = read_config(folder).model_copy(update={"training": dict(training)})
    with replacing(folder / NAME, overwrite=True) as partial:
        partial.write_text(config.text(), encoding="utf-8")


def told_preprocess(model: nn.Module) -> Preprocess | None:
    """How the model's pictures are prepared; None if it does not say so in a known way."""
    try:
        return preprocess_of(model)
    except LSEError:  # a data config of timm's that is not known here: nothing is told rather than a guess
        return None


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
