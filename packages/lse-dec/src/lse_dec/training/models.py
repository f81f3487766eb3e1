"""The model of a run: made, adapted, given weights, written, and read back."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from lse_core.errors import LSEError, OutputError, unknown_name
from lse_core.plugins import registry
from lse_dec.adaptation import AdaptedModel, adapt
from lse_dec.checkpoint import load, save
from lse_dec.checkpoint.config import NAME as ADAPTED
from lse_dec.checkpoint.config import CheckpointError, Config
from lse_dec.checkpoint.folder import WEIGHTS
from lse_dec.training.config import ConfigError, Model, RunConfig
from lse_dec.training.methods import find
from lse_dec.training.reading import parse
from lse_dec.training.seeding import number

__all__ = ["RUN", "base_model", "load_run", "make_model", "model_folder", "read_run", "save_run"]

RUN = "run.json"
"""Beside the weights: the run's settings, and how its images were normalised."""


def make_model(config: RunConfig) -> nn.Module:
    """The model as training starts: weights from `model.initial` or the seed, adapted as asked for.

    Raises:
        LSEError: a name that nothing provides, keywords that do not fit, or weights that do not.
    """
    model = initial_model(config) if config.model.initial else seeded_base(config)
    if config.adapt is not None:
        if isinstance(model, AdaptedModel):
            raise ConfigError(
                f"{config.model.initial} holds an adapted model; leave adapt out to train it on"
            )
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.adapt.items()}
        with _drawing(number(config.seed, "weights", 1)):
            model = adapt(model, **options)
    return model


def seeded_base(config: RunConfig) -> nn.Module:
    """The base with random weights of the run's seed."""
    with _drawing(number(config.seed, "weights", 0)):
        return base_model(config.model)


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """torch's global generator seeded while the block runs, as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def base_model(settings: Model) -> nn.Module:
    """The model that `settings` name, with random weights."""
    if ":" in settings.name:
        return _called(find(settings.name, "model"), settings)
    import timm

    registry().items("backbone")  # plugins register their models with timm when they are imported
    if not timm.is_model(settings.name):
        raise unknown_name("timm model", settings.name, timm.list_models())
    return _called(lambda **kwargs: timm.create_model(settings.name, **kwargs), settings)


def _called(factory: Any, settings: Model) -> nn.Module:
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.kwargs.items()}
    try:
        model = factory(**kwargs)
    except LSEError:
        raise
    except Exception as error:  # whatever a constructor raises about its keywords
        raise ConfigError(
            f"cannot make the model {settings.name!r}: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{settings.name} gives a {type(model).__name__}, not a torch module")
    return model


def model_folder(folder: str | Path) -> Path:
    """Where the weights lie: `folder`, or `folder`/model for the folder of a run.

    Raises:
        CheckpointError: neither.
    """
    for place in (Path(folder), Path(folder) / "model"):
        if (place / WEIGHTS).is_file() or (place / ADAPTED).is_file():
            return place
    raise CheckpointError(
        f"{folder} holds no {WEIGHTS}: give the folder of a finished run or of lse_dec.save"
    )


def initial_model(config: RunConfig) -> nn.Module:
    """The base with the weights of `model.initial`; adapted if that was."""
    assert config.model.initial is not None
    place = model_folder(config.model.initial)
    return _read(place, lambda: seeded_base(config))


def load_run(folder: str | Path) -> nn.Module:
    """The model that a run or `lse_dec.save` wrote, adapted or not, in eval mode on the CPU.

    Raises:
        CheckpointError: absent or damaged files, or a base that cannot be made again.
    """
    place = model_folder(folder)
    if (place / RUN).is_file():
        settings = _without_download(parse(Model, read_run(place)["config"]["model"], "model."))
        return _read(place, lambda: base_model(settings)).eval()
    if not (place / ADAPTED).is_file():
        raise CheckpointError(
            f"{place} holds neither {ADAPTED} nor {RUN}: nothing tells how to make the model"
        )
    return load(place)


def read_run(place: str | Path) -> dict[str, Any]:
    """What run.json says: "config", "mean", "std", "resolution"; {} where there is none."""
    path = model_folder(place) / RUN
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return found


def _without_download(settings: Model) -> Model:
    """The same model where weights come from a file of ours, not from timm's."""
    return replace(settings, kwargs={k: v for k, v in settings.kwargs.items() if k != "pretrained"})


def _read(place: Path, base: Any) -> nn.Module:
    if (place / ADAPTED).is_file():
        named = Config.read(place).model["source"] == "timm"
        return load(place, None if named else base())
    model: nn.Module = base()
    try:
        load_model(model, str(place / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        first = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{place / WEIGHTS} does not fit {type(model).__name__}: {first}") from error
    return model


def save_run(model: nn.Module, folder: Path, run: dict[str, Any]) -> None:
    """Write `model` and how it came to be: what `load_run` reads, and `lse_dec.load` where it is adapted.

    Raises:
        OutputError: the folder cannot be written.
    """
    settings = _without_download(parse(Model, run["config"]["model"], "model."))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
            text = Path(temporary) / RUN
            text.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
            if not isinstance(model, AdaptedModel):
                save_model(model, str(Path(temporary) / WEIGHTS), metadata={"format": "pt"})
                os.replace(Path(temporary) / WEIGHTS, folder / WEIGHTS)
            os.replace(text, folder / RUN)
        if isinstance(model, AdaptedModel):
            by_timm = ":" not in settings.name and settings.kwargs
            kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.kwargs.items()}
            save(model, folder, model_kwargs=kwargs if by_timm else None)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
