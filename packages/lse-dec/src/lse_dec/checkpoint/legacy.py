"""Folders of format version 1: config.json for adapted models only, run.json beside it after training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lse_core.errors import UnknownNameError
from lse_dec.checkpoint.config import CheckpointError
from lse_dec.checkpoint.source import named

__all__ = ["RUN", "upgraded"]

RUN = "run.json"


def upgraded(folder: Path, config: Mapping[str, Any] | None, run: Any) -> dict[str, Any]:
    """The values of a present config, from what version 1 wrote.

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
