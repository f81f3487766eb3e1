"""The state of an unfinished run on disk: written whole or not at all, and refused if it is another run's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from lse_core.atomic import replacing
from lse_core.errors import OutputError
from lse_dec.training.config import ConfigError
from lse_dec.training.log import CSV, EVENTS
from lse_dec.training.reading import differences

__all__ = ["CONFIG", "MODEL", "RESULT", "STATE", "claim", "read_state", "write_json", "write_state"]

CONFIG, STATE, RESULT, MODEL = "settings.json", "state.pt", "result.json", "model"

FREE = ("device", "log_every", "checkpoint_every")
"""Settings that a resumed run may have otherwise: they change no number of its result."""


def claim(folder: Path, settings: dict[str, Any], *, fresh: bool) -> None:
    """Make `folder` the place of the run of `settings`, or find that it is.

    Args:
        folder: made if absent.
        settings: the run's, plain.
        fresh: remove what an earlier run left; other files stay.

    Raises:
        ConfigError: it holds another run; names the settings that differ.
        OutputError: it cannot be written.
    """
    path = folder / CONFIG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            for name in (CONFIG, STATE, RESULT, CSV):
                (folder / name).unlink(missing_ok=True)
            for name in (MODEL, EVENTS):
                shutil.rmtree(folder / name, ignore_errors=True)
        if path.exists():
            # through JSON, so that both sides hold lists where tuples were
            found = differences(_meaning(json.loads(path.read_text(encoding="utf-8"))), _meaning(settings))
            if found:
                raise ConfigError(
                    f"{folder} holds a run of other settings: {', '.join(found)} differ; "
                    "choose another --out, or --fresh to start over"
                )
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is damaged: {error}; start over with --fresh") from error
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; choose another --out"
        ) from error
    write_json(path, settings)


def _meaning(settings: dict[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(settings))
    return {key: value for key, value in plain.items() if key not in FREE}


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; raises OutputError."""
    with replacing(path, overwrite=True) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint, whole or not at all; raises OutputError."""
    partial = folder / f".{STATE}.partial"
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave the new name with nothing in it
        os.replace(partial, folder / STATE)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write {folder / STATE}: {error}") from error


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
    return state
