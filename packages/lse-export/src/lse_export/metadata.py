"""What an exported file says about itself: keys under `lse.`, values plain text or JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypeVar

import onnx
import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from lse_core.card import card_of
from lse_core.errors import LSEError
from lse_core.moved import moved_names
from lse_core.preprocess import Preprocess, preprocess_of
from lse_core.settings import validated
from lse_export.errors import ExportError
from lse_export.gate.graph import inputs_of, sizes_of, type_name
from lse_export.preprocess import RawPictures
from lse_export.unroll import canonicalizers_of, residual_traces, steps_of

__all__ = ["CARRIED", "FileFacts", "describe", "facts_of", "shown"]
__getattr__ = moved_names(__name__)

T = TypeVar("T")

CARRIED = ("lse.class_names", "lse.preprocess", "lse.raw_pictures")
"""Keys that a client needs; engines and model repositories made of a file carry them along."""

Count = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, Field(strict=True, gt=-1e30, lt=1e30)]


class _Site(BaseModel):
    steps: Count | None = None


_OBJECT = TypeAdapter(dict[str, Any])
_NAMES = TypeAdapter(list[Annotated[str, Field(strict=True)]])
_NUMBERS = TypeAdapter(Annotated[list[Number], Field(min_length=1)])
_LIMITS = TypeAdapter(tuple[Count, Count | None])
_SITES = TypeAdapter(dict[str, _Site])


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
            things = [asked.get(key) or getattr(c, key, None) for c in canonicalizers.values()]
            names = {thing if isinstance(thing, str) else type(thing).__name__.lower() for thing in things}
            facts[f"lse.{key}"] = ", ".join(sorted(names))
        if steps := steps_of(model):
            same = len(set(steps.values())) == 1
            facts["lse.steps"] = str(next(iter(steps.values()))) if same else json.dumps(steps)
        traces = residual_traces(model, example)
        facts["lse.residual"] = json.dumps({site: _short(trace[-1]) for site, trace in traces.items()})
    return dict(sorted(facts.items()))


def shown(shape: Sequence[int | None]) -> str:
    """A shape as text, in which a size that varies is called "any"."""
    return f"({', '.join('any' if n is None else str(n) for n in shape)})"


def facts_of(path: Path, proto: onnx.ModelProto | None = None) -> FileFacts:
    """The facts of an ONNX file; of a file that cannot be read, which an error tells when it is run, none.

    Args:
        path: the file.
        proto: its contents, where they were read already.
    """
    if proto is None:
        try:
            proto = onnx.load_model(path, load_external_data=False)
        except Exception:  # protobuf's DecodeError moves between its versions
            return FileFacts(str(path))
    told = {prop.key: prop.value for prop in proto.metadata_props}
    for value in inputs_of(proto.graph):
        kind = type_name(value.type.tensor_type.elem_type)
        return FileFacts(str(path), told, kind, tuple(n or None for n in sizes_of(value)))
    return FileFacts(str(path), told)


@dataclass(frozen=True)
class FileFacts:
    """The metadata of a file, and what its first input takes.

    The methods read one key each. They raise ExportError for metadata that were changed by hand, or made by
    somebody else, and answer None (an empty list or dict) where the file does not have the key.

    Attributes:
        where: names the file in errors.
        metadata: texts by key.
        kind: type of the first input, such as "float32"; "unknown" for a file without inputs.
        shape: its sizes, None where a size varies.
    """

    where: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    kind: str = "unknown"
    shape: tuple[int | None, ...] = ()

    def _damaged(self, key: str, reason: str = "") -> ExportError:
        told = f" ({reason})" if reason else ""
        return ExportError(f"{self.where}: the metadata {key} are damaged{told}; export it again")

    def _json(self, key: str, adapter: TypeAdapter[T]) -> T | None:
        if key not in self.metadata:
            return None
        try:
            return adapter.validate_json(self.metadata[key])
        except ValidationError as error:
            raise self._damaged(key) from error

    def class_names(self, count: int | None = None) -> list[str]:
        """Names of the classes, in order.

        Args:
            count: how many scores the file gives, where that is known. Scores without a name are called by
                their number.
        """
        names = self._json("lse.class_names", _NAMES) or []
        if count is None or not names:
            return names
        if len(names) > count:
            raise ExportError(
                f"{self.where}: its metadata name {len(names)} classes, but it gives {count} scores; "
                "export it again"
            )
        return names + [str(number) for number in range(len(names), count)]

    def numbers(self, key: str) -> list[float] | None:
        """The list of numbers under `key`."""
        return self._json(key, _NUMBERS)

    def steps(self) -> dict[str, int]:
        """Solver steps by site."""
        sites = self._json("lse.settings", _SITES) or {}
        return {name: site.steps for name, site in sites.items() if site.steps is not None}

    def limits(self, side: str) -> tuple[int, int | None]:
        """Least and largest (None: any) "height" or "width" that the file takes."""
        return self._json(f"lse.{side}", _LIMITS) or (1, None)

    def preprocess(self) -> Preprocess | None:
        """How the file's pictures are prepared."""
        told = self._json("lse.preprocess", _OBJECT)
        if told is None:
            return None
        try:
            return validated(Preprocess, told, "it")
        except (LSEError, OverflowError) as error:  # the latter for numbers that no float holds
            raise self._damaged("lse.preprocess", str(error).removeprefix("it: ")) from error

    def image_shape(self) -> tuple[int | None, tuple[int, int] | None]:
        """Batch size and (height, width) of the images that the file takes; None for what it leaves open.

        A size that varies is the one that the metadata tell; of a file that takes raw pictures it is None.
        """
        batch, sides = self.shape[0] if self.shape else None, self.shape[2:]
        if self.kind == "uint8" or len(sides) != 2:
            return batch, None
        if sides[0] is not None and sides[1] is not None:
            return batch, (sides[0], sides[1])
        told = self.preprocess()
        return batch, told.size if told is not None else None

    def raw_pictures(self) -> RawPictures | None:
        """The pictures that a file takes which prepares them itself."""
        told = self._json("lse.raw_pictures", _OBJECT)
        if told is None:
            return None
        raw = validated(RawPictures, {**told, "preprocess": self.preprocess()}, self.where)
        if self.kind != "uint8" or self.shape[1:] != raw.shape:
            raise ExportError(
                f"{self.where} takes {self.kind} {shown(self.shape)}, but its metadata lse.raw_pictures tell "
                f"of raw pictures, uint8 {shown([None, *raw.shape])}; export it again"
            )
        return raw

    def pictures(self) -> RawPictures | Preprocess:
        """How pictures are read for the file, raw or prepared; ExportError where it does not say."""
        found = self.raw_pictures() or self.preprocess()
        if found is None:
            raise ExportError(f"{self.where} does not say how pictures are prepared")
        return found


def _settings(canonicalizer: nn.Module) -> dict[str, Any]:
    """A canonicalizer's class, solver, rule and numbers, as plain values."""
    facts: dict[str, Any] = {"canonicalizer": type(canonicalizer).__name__}
    for key in ("solver", "rule"):
        if (thing := getattr(canonicalizer, key, None)) is not None:
            # settings objects are frozen dataclasses; of anything else only its class is told (no addresses)
            values = vars(thing) if dataclasses.is_dataclass(thing) else {}
            plain = {k: v for k, v in values.items() if isinstance(v, (int, float, str))}
            facts[key] = {"name": type(thing).__name__, **plain}
    for key in ("steps", "tol", "segments", "ratio", "resolution"):
        value = getattr(canonicalizer, key, None)
        if isinstance(value, (int, float)):
            facts[key] = value
    return facts


def _short(value: Tensor | float) -> float:
    # six digits: enough for people, and no difference in the last bit shows
    return float(f"{float(value):.6g}")
