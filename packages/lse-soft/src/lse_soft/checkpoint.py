"""Softened models on disk: folded weights as safetensors, how they were softened as readable JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import nn

from lse_core.atomic import staging, usual_mode
from lse_core.card import attach, card_of
from lse_core.errors import LSEError, OutputError
from lse_core.preprocess import Preprocess
from lse_core.settings import Settings, validated
from lse_core.timm_models import make
from lse_soft.certificate import Certificate, certify
from lse_soft.errors import SoftError
from lse_soft.groups import make_group
from lse_soft.places import Place
from lse_soft.softening import folded, softeners, spectrum_of

__all__ = ["NAME", "WEIGHTS", "load", "read_certificates", "save"]

NAME = "soft.json"
WEIGHTS = "soft.safetensors"  # a name of its own: other loaders take model.safetensors for theirs
FORMAT, VERSION = "lse-soft", 1


@dataclass(frozen=True)
class _Softened(Place):
    """A place with the softness b that its tensor was softened with; None stands for infinity."""

    b: float | None = None


class _Group(Settings):
    name: str
    settings: dict[str, Any]


class _Facts(Settings):
    """The contents of `soft.json`; `model` says how to make the model again, if timm made it."""

    format: Literal["lse-soft"] = "lse-soft"
    version: int = VERSION
    model: dict[str, Any]
    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] | None = None
    group: _Group
    threshold: str
    preserve_dc: bool
    places: tuple[_Softened, ...]


def save(model: nn.Module, folder: str | Path, *, model_kwargs: Mapping[str, Any] | None = None) -> Path:
    """Write a softened model: `soft.safetensors` with folded weights under plain keys, and `soft.json`.

    The weights underneath the softening are not kept, so a loaded model cannot be unsoftened.

    Args:
        model: what `soften` returned; left as it is.
        folder: where to write; made if absent.
        model_kwargs: the keywords the model was made with by `timm.create_model`; a model made otherwise has
            to be given to `load`.

    Returns:
        The folder.

    Raises:
        SoftError: not softened, or softened inside a wrapper such as an adapted model: save that with its own
            package, within `lse_soft.folded`.
        OutputError: the folder cannot be written.
    """
    found = softeners(model)
    if not found:
        raise SoftError("save takes a softened model; call it before fold")
    modules = dict(model.named_modules())
    if any(s.place.module not in modules for s in found.values()):
        raise SoftError(
            "the softened model is part of another one: save that with its own package, "
            "within lse_soft.folded(model)"
        )
    one, card = next(iter(found.values())), card_of(model)
    with folded(model):
        name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
        source: dict[str, Any] = (
            {"source": "timm", "name": name, "kwargs": dict(model_kwargs or {})}
            if name
            else {"source": "given", "class": type(model).__qualname__}
        )
        facts = _Facts(
            model=source,
            preprocess=card.preprocess,
            class_names=card.class_names,
            group=_Group(name=one.group.title, settings=one.group.settings()),
            threshold=one.threshold,
            preserve_dc=one.preserve_dc,
            places=tuple(
                _Softened(**asdict(s.place), b=None if s.b == math.inf else s.b) for s in found.values()
            ),
        )
        folder = Path(folder)
        with staging(folder / NAME) as temporary:
            try:
                save_model(model, str(temporary / WEIGHTS), metadata={"format": "pt"})
            except SafetensorError as error:  # of the system, in the writer's words
                raise OutputError(f"cannot write {folder / WEIGHTS}: {error}") from error
            (temporary / NAME).write_text(json.dumps(facts.plain(), indent=2) + "\n", encoding="utf-8")
            for name in (WEIGHTS, NAME):
                usual_mode(temporary / name)
                os.replace(temporary / name, folder / name)
    return folder


def load(folder: str | Path, model: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
    """Read what `save` wrote: a plain model with folded weights, in eval mode on the CPU.

    Args:
        folder: a folder written by `save`.
        model: the model to load into; only needed where it was not made by timm.
        trust: accept any keyword of timm's model, not only those that describe an architecture.

    Returns:
        The model; its card (see `lse_core.card_of`) holds preprocessing and class names, where known.

    Raises:
        SoftError: absent or damaged files, a keyword that needs trust, or weights that do not fit the model.
    """
    folder = Path(folder)
    facts = _read(folder)
    if model is None:
        model = _made(folder, facts.model, trust)
    try:
        load_model(model, str(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        first = " ".join(str(error).split())[:200]
        raise SoftError(f"{folder / WEIGHTS} does not fit {type(model).__name__}: {first}") from error
    known = {"preprocess": facts.preprocess, "class_names": facts.class_names}
    attach(model, **{name: value for name, value in known.items() if value is not None})
    return model.eval()


def read_certificates(folder: Path) -> dict[str, Certificate]:
    """Certificates of the weights in a folder that `save` wrote; neither the model nor timm is needed.

    Raises:
        SoftError: absent or damaged files.
        UnknownNameError: the group's plugin is not installed.
    """
    facts = _read(folder)
    try:
        tensors = load_file(str(folder / WEIGHTS))
    except (SafetensorError, OSError) as error:
        raise SoftError(f"cannot read {folder / WEIGHTS}: {error}") from error
    group = make_group(facts.group.name, facts.group.settings)
    certificates = {}
    for place in facts.places:
        spectrum = spectrum_of(group, place)
        key = f"{place.module}.{place.tensor}" if place.module else place.tensor
        if key not in tensors:
            raise SoftError(f"{folder / WEIGHTS} is damaged: it lacks the tensor {key!r}")
        if spectrum is not None:
            b = math.inf if place.b is None else place.b
            certificates[place.name] = certify(place, group, spectrum, tensors[key], b, facts.threshold)
    return certificates


def _read(folder: Path) -> _Facts:
    path = folder / NAME
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SoftError(f"{folder} holds no {NAME}: not a folder written by lse_soft.save") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SoftError(f"{path} is damaged: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise SoftError(f"{path} is no {FORMAT} file")
    if not isinstance(facts.get("version"), int) or facts["version"] > VERSION:
        raise SoftError(f"{path} is of a newer format; this lse-soft reads up to {VERSION}: upgrade it")
    try:
        return validated(_Facts, facts)
    except LSEError as error:
        raise SoftError(f"{path} is damaged: {error}") from error


def _made(folder: Path, source: Mapping[str, Any], trust: bool) -> nn.Module:
    if source.get("source") != "timm":
        raise SoftError(
            f"{folder} does not say how to make its model: make it and pass it as load(folder, model)"
        )
    try:
        made = make(str(source.get("name")), source.get("kwargs") or {}, trust=trust)
    except LSEError as error:
        raise SoftError(f"{folder / NAME}: {error}") from error
    return made.to(torch.float32)
