"""What an exported file says about itself: keys under `lse.`, values plain text or JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from lse_core.card import card_of
from lse_core.preprocess import preprocess_of
from lse_export.unroll import canonicalizers_of, residual_traces, steps_of

__all__ = ["CARRIED", "describe", "read_metadata"]

CARRIED = ("lse.class_names", "lse.preprocess", "lse.raw_pictures")
"""Keys that a client needs, which go along with what is made of a file: engines, model repositories."""


def describe(
    model: nn.Module, example: Tensor, *, opset: int, class_names: Sequence[str] | None = None
) -> dict[str, str]:
    """Metadata of `model`, which must be in the state it is exported in.

    Keys: `lse.version`; `lse.sites`, `lse.mode`, `lse.solver`, `lse.rule`, `lse.steps` as `adapt` was
    asked; `lse.settings`, JSON by site with each canonicalizer's class, solver, rule, steps and
    tolerance in full; `lse.residual`, JSON by site: the largest residual over the example at the last
    step; `lse.input_range`, JSON [least, largest] value of the example; `lse.preprocess`, JSON, how
    pictures are prepared (`lse_core.Preprocess`), where the model says so; `lse.class_names`, JSON;
    `lse.opset`, `lse.torch` and `lse.onnx`. A plain model has no keys about canonicalizers.
    """
    facts = {
        "lse.version": metadata.version("lse-export"),
        "lse.torch": torch.__version__,
        "lse.onnx": onnx.__version__,
        "lse.opset": str(opset),
        "lse.input_range": json.dumps([_short(example.min()), _short(example.max())]),
    }
    classes = class_names if class_names is not None else card_of(model).class_names
    if classes is not None:
        facts["lse.class_names"] = json.dumps(list(classes))
    preprocess = preprocess_of(model, (example.shape[2], example.shape[3]))
    if preprocess is not None:
        facts["lse.preprocess"] = preprocess.to_json()
    canonicalizers = canonicalizers_of(model)
    if canonicalizers:
        asked: Mapping[str, Any] = getattr(model, "settings", {})
        facts |= {
            "lse.sites": json.dumps(list(canonicalizers)),
            "lse.mode": str(getattr(model, "mode", "unknown")),
            "lse.settings": json.dumps({site: _settings(c) for site, c in canonicalizers.items()}),
        }
        for key in ("solver", "rule"):
            names = {
                _name(asked[key] if key in asked else getattr(c, key, None)) for c in canonicalizers.values()
            }
            facts[f"lse.{key}"] = ", ".join(sorted(names))
        if steps := steps_of(model):
            same = len(set(steps.values())) == 1
            facts["lse.steps"] = str(next(iter(steps.values()))) if same else json.dumps(steps)
        traces = residual_traces(model, example)
        facts["lse.residual"] = json.dumps({site: _short(trace[-1]) for site, trace in traces.items()})
    return dict(sorted(facts.items()))


def read_metadata(proto: onnx.ModelProto) -> dict[str, str]:
    """All metadata properties of a model."""
    return {prop.key: prop.value for prop in proto.metadata_props}


def _settings(canonicalizer: nn.Module) -> dict[str, Any]:
    facts: dict[str, Any] = {"canonicalizer": type(canonicalizer).__name__}
    for key in ("solver", "rule"):
        if hasattr(canonicalizer, key):
            facts[key] = _plain(getattr(canonicalizer, key))
    for key in ("steps", "tol", "segments", "ratio", "resolution"):
        value = getattr(canonicalizer, key, None)
        if isinstance(value, (int, float)):
            facts[key] = value
    return facts


def _plain(thing: Any) -> Any:
    """Settings objects are frozen dataclasses; of anything else only its class is told (no addresses)."""
    name = type(thing).__name__
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        values = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing)}
        return {"name": name, **{k: v for k, v in values.items() if isinstance(v, (int, float, str))}}
    return {"name": name}


def _name(thing: Any) -> str:
    return thing if isinstance(thing, str) else type(thing).__name__.lower()


def _short(value: Tensor | float) -> float:
    # six digits: enough for people, and no difference in the last bit shows
    return float(f"{float(value):.6g}")
