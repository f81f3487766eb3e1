"""Writing and reading a checkpoint folder: model.safetensors and config.json."""

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
from safetensors.torch import load_model, save_model
from torch import nn

from lse_core.atomic import replacing, usual_mode
from lse_core.card import attach, card_of
from lse_core.errors import LSEError, OutputError, UnknownNameError, unknown_name
from lse_core.plugins import registry
from lse_core.preprocess import Preprocess, channels_and_size, preprocess_of
from lse_core.settings import validated
from lse_dec.adaptation import AdaptedModel, adapt
from lse_dec.checkpoint.config import NAME, Adapt, CheckpointError, Config, Weights
from lse_dec.checkpoint.legacy import RUN
from lse_dec.checkpoint.plain import PLUGINS, from_plain, plugins_of, to_plain
from lse_dec.checkpoint.reading import read_config
from lse_dec.checkpoint.source import describe, make

__all__ = ["WEIGHTS", "load", "load_if_ours", "model_folder", "save"]

WEIGHTS = "model.safetensors"

DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}

INSIDE = ("model", "dec")
"""Where the model lies in the folder of a run and in that of the demo."""


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
    if not isinstance(model, nn.Module) or (isinstance(model, AdaptedModel) and not model.names):
        raise LSEError(f"save takes a model, adapted or not, that is whole; got {type(model).__name__}")
    adapted = None
    if isinstance(model, AdaptedModel):
        settings = to_plain(model.settings)
        adapted = Adapt(
            sites=tuple(model.names), mode=model.mode, settings=settings, plugins=plugins_of(settings)
        )
    with _base(model) as base:
        source = describe(base, model_kwargs)
        card = card_of(base)
        known = preprocess or _preprocess_of(base)
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
                "weights": Weights(file=WEIGHTS, sha256=_checksum(weights)),
            }
            config.write_text(validated(Config, values, "save").text(), encoding="utf-8")
            for path in (weights, config):
                usual_mode(path)
                os.replace(path, folder / path.name)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


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
        preprocess=config.preprocess or _preprocess_of(made),
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


def _check_facts(base: nn.Module, preprocess: Preprocess | None, names: Any, training: Any) -> None:
    """Refuse facts that cannot be about this model, or cannot be written."""
    channels, _ = channels_and_size(base)
    if preprocess is not None and channels not in (None, preprocess.channels):
        raise LSEError(f"the preprocessing is for {preprocess.channels} channels, the model takes {channels}")
    if isinstance(names, str):
        raise LSEError(f"class_names are several names, in a list; got the text {names!r}")
    try:
        json.dumps(training)
    except (TypeError, ValueError, RecursionError) as error:
        raise LSEError(f"training must be plain values, as JSON has them: {error}") from error


def retell(folder: Path, training: Mapping[str, Any]) -> None:
    """Change what the config in `folder` says of the training; all else stays.

    Raises:
        CheckpointError: there is no checkpoint.
        OutputError: the config cannot be written.
    """
    config = read_config(folder).model_copy(update={"training": dict(training)})
    with replacing(folder / NAME, overwrite=True) as partial:
        partial.write_text(config.text(), encoding="utf-8")


def load_if_ours(path: Path, *, trust: bool = False) -> Any:
    """As `load`; None where `path` holds no model of ours. For the hook `lse_loaders`."""
    try:
        model_folder(path)
    except CheckpointError:
        return None
    return load(path, trust=trust)


def _preprocess_of(model: nn.Module) -> Preprocess | None:
    try:
        return preprocess_of(model)
    except LSEError:  # a data config of timm's that is not known here: nothing is told rather than a guess
        return None


def _base(model: nn.Module) -> Any:
    # the sites are lifted out while the base is compared with its rebuild
    return model.without_sites() if isinstance(model, AdaptedModel) else nullcontext(model)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_weights(path: Path, expected: str | None) -> None:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is no file; copy the model's folder again")
    try:
        found = _checksum(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if expected is not None and found != expected:
        raise CheckpointError(
            f"{path} is not the file that its {NAME} belongs to (checksum): truncated, changed, or "
            "a save was interrupted; copy both files again"
        )


def _check_plugins(folder: Path, plugins: Mapping[str, str]) -> None:
    for key, distribution in plugins.items():
        kind, _, name = key.partition(":")
        if kind not in PLUGINS.values():
            raise CheckpointError(f"{folder / NAME}: {key!r} is no plugin that a model can need")
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
        raise CheckpointError(f"{folder / NAME} does not fit: {first}") from error
