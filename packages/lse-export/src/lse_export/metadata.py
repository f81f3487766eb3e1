"""What an exported file says about itself: keys under `lse.`, values plain text or JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NoReturn, TypeVar

import onnx
import torch
from torch import Tensor, nn

from lse_core.card import card_of
from lse_core.preprocess import preprocess_of
from lse_export.errors import ExportError
from lse_export.unroll import canonicalizers_of, residual_traces, steps_of

__all__ = [
    "CARRIED",
    "class_names_in",
    "damaged",
    "describe",
    "json_in",
    "limits_in",
    "numbers_in",
    "read_metadata",
    "steps_in",
]

T = TypeVar("T")

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


def damaged(where: str, key: str, reason: str = "") -> ExportError:
    """The error for metadata that were changed by hand, or made by somebody else."""
    told = f" ({reason})" if reason else ""
    return ExportError(f"{where}: its metadata {key} are damaged{told}; export it again")


def json_in(
    facts: Mapping[str, str], key: str, where: str, kind: type[T], fits: Callable[[T], bool]
) -> T | None:
    """A JSON value of a file's metadata; None where the file does not have it.

    Args:
        facts: metadata by key.
        key: of the value.
        where: whose metadata these are, for errors.
        kind: the type it must have.
        fits: whether a value of that type is one of ours.

    Raises:
        ExportError: the text is no JSON, or its value is of another type or does not fit.
    """
    if key not in facts:
        return None
    try:
        value = json.loads(facts[key], parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise damaged(where, key) from error
    if not isinstance(value, kind) or not fits(value):
        raise damaged(where, key)
    return value


def class_names_in(facts: Mapping[str, str], where: str, count: int | None = None) -> list[str]:
    """Names of the classes by a file's metadata, in order; empty where it tells none.

    Args:
        facts: metadata by key.
        where: whose metadata these are, for errors.
        count: how many scores the file gives, where that is known. Scores without a name are called by
            their number.

    Raises:
        ExportError: no list of names, or more of them than there are scores.
    """
    names = json_in(facts, "lse.class_names", where, list, lambda v: all(map(_is_text, v))) or []
    if count is None or not names:
        return names
    if len(names) > count:
        raise ExportError(
            f"{where}: its metadata name {len(names)} classes, but it gives {count} scores; export it again"
        )
    return names + [str(number) for number in range(len(names), count)]


def numbers_in(facts: Mapping[str, str], key: str, where: str) -> list[float] | None:
    """A list of numbers in a file's metadata; ExportError for anything else, None where there is none."""
    return json_in(facts, key, where, list, lambda v: bool(v) and all(map(_is_number, v)))


def steps_in(facts: Mapping[str, str], where: str) -> dict[str, int]:
    """Solver steps by site, as a file tells; empty for one that tells nothing, ExportError for nonsense."""
    settings = json_in(
        facts, "lse.settings", where, dict,
        lambda v: all(isinstance(s, dict) and _is_count(s.get("steps", 1)) for s in v.values()),
    )  # fmt: skip
    return {site: values["steps"] for site, values in (settings or {}).items() if "steps" in values}


def limits_in(facts: Mapping[str, str], side: str, where: str) -> tuple[int, int | None]:
    """Least and largest (None: any) "height" or "width" that a file takes, by its metadata."""
    found = json_in(
        facts, f"lse.{side}", where, list,
        lambda v: len(v) == 2 and _is_count(v[0]) and (v[1] is None or _is_count(v[1])),
    )  # fmt: skip
    return (found[0], found[1]) if found is not None else (1, None)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _is_text(value: object) -> bool:
    # JSON can hold half of a character, which nothing can write
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


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
