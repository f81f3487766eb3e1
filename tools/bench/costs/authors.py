"""The authors' adapted models, from a checkout of their code, which is no part of this project.

Their equilibrium module runs, with its solver (torchdeq), their warps and their converters of timm models,
all with the settings of their own file. An empty module replaces `layers.adapter`, the canonicalization by
gradient descent with its logging and trainer: it is imported by name, and nothing of it runs in a forward
or backward pass.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import yaml
from torch import nn

from lse_core.errors import LSEError
from lse_dec.backbones.base import is_a

__all__ = ["authors_model", "described", "family", "revision"]

SETTINGS = Path("imagenet/config/adapter_config.yaml")
UNUSED = "layers.adapter"
FAMILIES = {
    "vit": "timm.models.vision_transformer.VisionTransformer",
    "swin": "timm.models.swin_transformer.SwinTransformer",
    "beit": "timm.models.beit.Beit",
}


def family(model: nn.Module) -> str | None:
    """Which of their converters of timm models takes this one; None where they have none (ResNets)."""
    return next((name for name, kind in FAMILIES.items() if is_a(model, kind)), None)


def authors_model(checkout: Path, model: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy of `model` that shares its weights, adapted by the authors' code with their settings for it.

    Their warps do not start at the identity, so nothing needs to be disturbed. Under autocast their
    equilibrium stays in float32.

    Raises:
        LSEError: no checkout of theirs there, one that cannot be imported, or a model they do not adapt.
    """
    kind = family(model)
    if kind is None:
        raise LSEError(f"the authors' code has no converter for timm's {type(model).__name__}")
    settings = _settings(checkout, f"dem_{kind}")
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    with _importable(checkout) as load:
        torch.manual_seed(seed)
        canonicalizer = load("models.surrogate_model").DEMAdapter(settings)
        parameters = load("layers.adapter_params").PerlayerAdapterParams(
            num_layers=settings.num_phi_layers, adapter_coarse_resolution=settings.adapter_coarse_resolution
        )
        convert = load("imagenet.timm_model_handler").convert_model
    like = next(model.parameters())
    parameters.to(like.device)
    result: Any = convert(
        copy.deepcopy(model, shared), settings, parameters, canonicalizer.to(like.device, like.dtype)
    )
    # under autocast their solver meets systems it cannot solve, and their warps pixels beyond the image
    result.DEM._DEQ = torch.autocast(like.device.type, enabled=False)(result.DEM._DEQ)
    return result.train(model.training)


def described(checkout: Path, kinds: Iterable[str]) -> str:
    """Their settings for families of models, in words."""
    words = []
    for kind in kinds:
        s = _settings(checkout, f"dem_{kind}")
        words.append(
            f"{kind}: {s.num_phi_layers} sites, {s.inner_epochs} solver steps, "
            f"grids of {s.adapter_coarse_resolution}, channels {s.adapter_channels}"
        )
    return "; ".join(words)


def revision(checkout: Path) -> str:
    """Commit of the checkout, or "unknown"."""
    import subprocess

    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _settings(checkout: Path, name: str) -> Any:
    path = checkout / SETTINGS
    if not path.is_file():
        raise LSEError(f"{checkout} holds no {SETTINGS}: it is no checkout of the authors' code")
    values = yaml.safe_load(path.read_text(encoding="utf-8")).get(name)
    if values is None:
        raise LSEError(f"{path} has no settings {name}")
    # their reader takes the word None for nothing
    return SimpleNamespace(**{k: None if v == "None" else v for k, v in values.items()})


@contextmanager
def _importable(checkout: Path) -> Iterator[Any]:
    """Their modules by name, which are as general as `utils`, and gone from `sys.modules` afterwards."""
    ours = ("models", "layers", "utils", "imagenet", "train")

    def theirs() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in ours]

    hidden = {name: sys.modules.pop(name) for name in theirs()}
    sys.path.insert(0, str(checkout.resolve()))
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.modules[UNUSED] = ModuleType(UNUSED)
    try:
        yield importlib.import_module
    except ImportError as error:
        raise LSEError(f"the authors' code cannot be imported: {error}") from error
    finally:
        sys.dont_write_bytecode = written
        sys.path.remove(str(checkout.resolve()))
        for name in theirs():
            del sys.modules[name]
        sys.modules.update(hidden)
