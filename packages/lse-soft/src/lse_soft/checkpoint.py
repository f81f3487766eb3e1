"""Softened models on disk: folded weights as safetensors, how they were softened as readable JSON."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import nn

from lse_core.card import attach, card_of
from lse_core.errors import LSEError, OutputError, unknown_name
from lse_core.preprocess import Preprocess
from lse_soft.certificate import Certificate, certify
from lse_soft.errors import SoftError
from lse_soft.groups import make_group
from lse_soft.places import Place
from lse_soft.softening import folded, softeners, spectrum_of

__all__ = ["NAME", "WEIGHTS", "load", "read_certificates", "save"]

NAME = "soft.json"
WEIGHTS = "soft.safetensors"  # a name of its own: other loaders take model.safetensors for theirs
FORMAT, VERSION = "lse-soft", 1

KEYWORDS = frozenset(
    [
        "attn_drop_rate",
        "class_token",
        "depth",
        "depths",
        "drop_path_rate",
        "drop_rate",
        "dynamic_img_size",
        "embed_dim",
        "embed_dims",
        "fc_norm",
        "global_pool",
        "img_size",
        "in_chans",
        "init_values",
        "kernel_size",
        "layers",
        "mlp_ratio",
        "num_blocks",
        "num_classes",
        "num_heads",
        "output_stride",
        "patch_size",
        "pos_drop_rate",
        "pos_embed",
        "proj_drop_rate",
        "qk_norm",
        "qkv_bias",
        "reg_tokens",
        "strict_img_size",
        "width",
        "widths",
        "window_size",
    ]
)
"""Keywords of timm's models that only say what an architecture looks like."""

FETCHING = ("cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")


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
            "the softened model lies inside another one: save that with its own package, "
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
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "model": source,
            "preprocess": None if card.preprocess is None else card.preprocess.plain(),
            "class_names": None if card.class_names is None else list(card.class_names),
            "group": {"name": one.group.title, "settings": one.group.settings()},
            "threshold": one.threshold,
            "preserve_dc": one.preserve_dc,
            # JSON has no infinity: null stands for it
            "places": [
                {**asdict(s.place), "b": s.b if s.b != float("inf") else None} for s in found.values()
            ],
        }
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
                weights, text = Path(temporary) / WEIGHTS, Path(temporary) / NAME
                save_model(model, str(weights), metadata={"format": "pt"})
                text.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
                for path in (weights, text):
                    os.replace(path, folder / path.name)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
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
        model = _made(folder, facts["model"], trust)
    try:
        load_model(model, str(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        first = " ".join(str(error).split())[:200]
        raise SoftError(f"{folder / WEIGHTS} does not fit {type(model).__name__}: {first}") from error
    if facts.get("preprocess") is not None:
        where = f"{folder / NAME}: preprocess"
        attach(model, preprocess=Preprocess.from_json(json.dumps(facts["preprocess"]), where))
    if isinstance(facts.get("class_names"), list):
        attach(model, class_names=tuple(str(name) for name in facts["class_names"]))
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
    try:
        group = make_group(facts["group"]["name"], facts["group"]["settings"])
        certificates = {}
        for entry in facts["places"]:
            place, b = _place(entry)
            spectrum = spectrum_of(group, place)
            key = f"{place.module}.{place.tensor}" if place.module else place.tensor
            if spectrum is not None:
                certificates[place.name] = certify(
                    place, group, spectrum, tensors[key], b, facts["threshold"]
                )
    except (KeyError, TypeError) as error:
        raise SoftError(f"{folder / NAME} is damaged: it does not tell {error}") from error
    return certificates


def _place(entry: Mapping[str, Any]) -> tuple[Place, float]:
    known = {f.name for f in fields(Place)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in entry.items() if k in known
    }
    b = entry["b"]
    return Place(**values), float("inf") if b is None else float(b)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SoftError(f"{folder} holds no {NAME}: not a folder written by lse_soft.save") from error
    except (OSError, ValueError) as error:
        raise SoftError(f"{path} is damaged: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or "model" not in facts:
        raise SoftError(f"{path} is no {FORMAT} file")
    if not isinstance(facts.get("version"), int) or facts["version"] > VERSION:
        raise SoftError(f"{path} is of a newer format; this lse-soft reads up to {VERSION}: upgrade it")
    return facts


def _made(folder: Path, source: Mapping[str, Any], trust: bool) -> nn.Module:
    if source.get("source") != "timm":
        raise SoftError(
            f"{folder} does not tell how to make its model: make it and pass it as load(folder, model)"
        )
    try:
        import timm
    except ImportError as error:
        raise LSEError(f"{folder} holds a timm model, and timm is not installed: pip install timm") from error
    name, given = str(source.get("name")), source.get("kwargs") or {}
    # a name with a scheme or a path would fetch, and so would some keywords
    if ":" in name or "/" in name or not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models(f"{name[:4]}*") or timm.list_models())
    for key, value in given.items():
        if key in FETCHING:
            raise SoftError(
                f"{folder / NAME}: the keyword {key!r} would read weights from elsewhere; drop it"
            )
        if not trust and not (key in KEYWORDS and _is_word(value)):
            raise SoftError(
                f"{folder / NAME} gives {name!r} the keyword {key!r}, which is not among those that only "
                "describe an architecture; if you trust where it comes from, pass trust=True (--trust)"
            )
    try:
        kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        made: nn.Module = timm.create_model(name, pretrained=False, **kwargs)
    except Exception as error:  # whatever a constructor raises about its keywords
        first = " ".join(str(error).split())[:200]
        raise SoftError(f"timm cannot make {name!r} of {folder}: {first}") from error
    return made.to(torch.float32)


def _is_word(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_word(item) for item in value)
    if isinstance(value, str):
        return re.fullmatch(r"[\w.\-]*", value) is not None
    return value is None or isinstance(value, bool | int | float)
