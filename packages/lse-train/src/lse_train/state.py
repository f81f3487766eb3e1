"""The state of an unfinished run on disk: written whole or not at all, and refused if it is another run's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field

from lse_core.atomic import replacing
from lse_core.errors import LSEError, OutputError
from lse_core.settings import Settings, validated
from lse_train.config import REMOVED, ConfigError, RunConfig
from lse_train.log import CSV, EVENTS
from lse_train.reading import differences

__all__ = [
    "CONFIG",
    "MODEL",
    "RESULT",
    "STATE",
    "check_result",
    "claim",
    "read_json",
    "read_state",
    "write_json",
    "write_state",
]

CONFIG = "settings.json"
"""File of a run's settings."""
STATE = "state.pt"
"""File from which an unfinished run is resumed."""
RESULT = "result.json"
"""File of a finished run's measurements."""
MODEL = "model"
"""Folder of the trained model."""

FREE = ("device", "log_every", "checkpoint_every")
"""Settings that a resumed run may have otherwise: they change no number of its result."""


def claim(folder: Path, settings: dict[str, Any], *, fresh: bool) -> None:
    """Make `folder` the place of the run of `settings`, or find that it is.

    Settings of a run that ended before anything was trained, by a mistake in them for instance, bind nobody.

    Args:
        folder: made if absent.
        settings: the run's, plain.
        fresh: remove what an earlier run left; other files stay.

    Raises:
        ConfigError: it holds another run; names the settings that differ.
        OutputError: it cannot be written, or would write through a link to somewhere else.
    """
    path = folder / CONFIG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            for name in (CONFIG, STATE, RESULT, CSV):
                (folder / name).unlink(missing_ok=True)
            for name in (MODEL, EVENTS):
                shutil.rmtree(folder / name, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write to {folder}: {reason}; choose another --out") from error
    for name in (MODEL, EVENTS):
        if (folder / name).is_symlink():
            raise OutputError(
                f"{folder / name} is a link, and the run would write to its target; "
                "remove it, or choose another --out"
            )
    for left in folder.glob(f".{STATE}.*"):  # of a run that was killed while it wrote its state
        shutil.rmtree(left, ignore_errors=True)
    if path.exists():
        found = differences(_meaning(_completed(read_json(path))), _meaning(settings))
        if found and any((folder / name).exists() for name in (STATE, RESULT, MODEL)):
            raise ConfigError(
                f"{folder} holds a run of other settings: {', '.join(found)} differ; "
                "choose another --out, or --fresh to start over"
            )
    write_json(path, settings)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run's folder; a ConfigError says that it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__} and no named values")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged: {error}; start over with --fresh") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is damaged: it is nested too deeply; start over with --fresh") from error
    return found


def _completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in a folder, with the defaults of those that the version that wrote them did not have."""
    try:
        return RunConfig.parse(settings).plain()
    except LSEError:
        return settings


def _meaning(settings: dict[str, Any]) -> dict[str, Any]:
    gone = {name: neutral for name, (neutral, _) in REMOVED.items()}  # in folders of earlier versions
    return {k: v for k, v in settings.items() if k not in FREE and not (k in gone and v == gone[k])}


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; raises OutputError."""
    with replacing(path, overwrite=True) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint, whole or not at all; raises OutputError."""
    path = folder / STATE
    try:
        with replacing(path, overwrite=True) as partial, partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave the new name with nothing in it
    except RuntimeError as error:  # torch.save reports a full disk as RuntimeError
        raise OutputError(f"cannot write {path}: {error}; make room and give the command again") from error


class _Site(Settings):
    displacement_pixels: float
    residual: float | None = None
    not_converged: float | None = None


class _Measured(Settings):
    model_config = ConfigDict(extra="allow", strict=True)  # more may have been measured, such as by scale

    images: int
    accuracy: float | None = None
    invariance_error: float
    sites: dict[str, _Site] = Field(default_factory=dict)


class _Result(Settings):
    model_config = ConfigDict(extra="allow", strict=True)

    metrics: dict[str, _Measured]
    seconds: float
    steps: int


def check_result(said: Any) -> None:
    """Refuse, with a ValueError, what cannot be read as a run's result.json."""
    validated(_Result, said)


def read_state(folder: Path) -> dict[str, Any] | None:
    """The checkpoint, on the CPU, or None where there is none.

    Raises:
        ConfigError: damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own
        raise ConfigError(f"{path} is damaged ({type(error).__name__}); start over with --fresh") from error
    if not isinstance(state, dict):
        raise ConfigError(f"{path} holds no state of a run; start over with --fresh")
    return state
