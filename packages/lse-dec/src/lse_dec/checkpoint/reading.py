"""Reading `config.json` back, whichever version wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lse_core.errors import LSEError, UnknownNameError
from lse_core.settings import validated
from lse_dec.checkpoint.config import FORMAT, NAME, VERSION, CheckpointError, Config
from lse_dec.checkpoint.source import named

__all__ = ["RUN", "read_config"]

RUN = "run.json"
"""What version 1 wrote after training, beside config.json or alone for models without canonicalizers."""


def read_config(folder: Path) -> Config:
    """Read and check `folder`/config.json, or what an older version left in its place.

    Raises:
        CheckpointError: absent, no JSON, not this format, from a newer version, or malformed.
    """
    path, raw = folder / NAME, _json(folder / NAME)
    if raw is None:
        run = _json(folder / RUN)
        if run is None:
            raise CheckpointError(
                f"{folder} contains no {NAME}: give a folder that lse_dec.save or lse train wrote"
            )
        path, raw = folder / RUN, _upgraded(folder, None, run)
    else:
        if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
            raise CheckpointError(f"{path} is no {FORMAT} config: its 'format' is not {FORMAT!r}")
        version = raw.pop("version", None)
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise CheckpointError(f"{path}: 'version' must be a whole number from 1; got {version!r}")
        if version > VERSION:
            raise CheckpointError(
                f"{path} is of format version {version}, written by lse-dec {raw.get('lse_dec', '?')}; "
                f"this one reads up to {VERSION}: pip install -U lse-dec"
            )
        if version == 1:
            raw = _upgraded(folder, raw, _json(folder / RUN))
    try:
        return validated(Config, raw, str(path))
    except LSEError as error:
        raise CheckpointError(str(error)) from error


def _json(path: Path) -> Any:
    """The value in the file, or None if there is no such file.

    Raises:
        CheckpointError: unreadable or no JSON.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise CheckpointError(f"{path} is no regular file")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _upgraded(folder: Path, config: Mapping[str, Any] | None, run: Any) -> dict[str, Any]:
    """The values of a present config, from what version 1 wrote: config.json for adapted models, run.json.

    Args:
        folder: for messages.
        config: its config.json, None where the model was not adapted.
        run: its run.json, None where it was not trained.

    Raises:
        CheckpointError: something is missing or of the wrong type.
    """
    try:
        found = _from_config(config) if config is not None else _plain_model()
        if run is not None:
            found |= _from_run(run, found["model"])
    except UnknownNameError as error:
        raise CheckpointError(f"{folder / RUN}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        name = "config.json" if run is None else RUN
        raise CheckpointError(
            f"{folder / name} is of an older version and damaged ({type(error).__name__}: {error}); save the "
            "model again with the version that wrote it"
        ) from error
    return found


def _from_config(old: Mapping[str, Any]) -> dict[str, Any]:
    model = dict(old["model"])
    if model.get("source") == "given":
        model = {"source": "given", "name": model["class"]}
    names = ("sites", "mode", "settings", "plugins")
    known = {"lse_dec", "model", "dtype", "weights", *names}
    return {
        "lse_dec": old["lse_dec"],
        "model": model,
        "adapt": {name: old[name] for name in names},
        "dtype": old["dtype"],
        "weights": dict(old["weights"]),
        **{name: value for name, value in old.items() if name not in known},  # refused, by name
    }


def _plain_model() -> dict[str, Any]:
    return {
        "lse_dec": "before 0.1.0",
        "model": {"source": "given", "name": "a model"},
        "adapt": None,
        "dtype": "float32",
        "weights": {"file": "model.safetensors", "sha256": None},
    }


def _from_run(run: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(run["config"])
    told = settings["model"]
    mean, std = [float(v) for v in run["mean"]], [float(v) for v in run["std"]]
    side = run["resolution"]
    options = {**settings["data"].get("options", {}), **settings["data"].get("train", {})}
    found: dict[str, Any] = {
        "preprocess": {
            "channels": len(mean),
            "size": [side, side] if isinstance(side, int) else list(side),
            "crop_pct": options.get("crop", 1.0),
            "mean": mean,
            "std": std,
        },
        "training": {k: v for k, v in settings.items() if k not in ("model", "adapt")},
    }
    if settings.get("precision") == "float64" and model["name"] == "a model":
        found["dtype"] = "float64"
    if model["source"] == "given":
        kwargs = {k: v for k, v in told.get("kwargs", {}).items() if k != "pretrained"}
        found["model"] = named(told["name"], kwargs).plain()
    return found
