"""Models to be measured: found by name, with all that a picture needs to become an answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lse_core.card import attach, card_of
from lse_core.errors import DataError, LSEError, UnknownNameError
from lse_core.lazy import import_object
from lse_core.plugins import registry
from lse_core.preprocess import Preprocess, channels_and_size, preprocess_of
from lse_core.settings import validated
from lse_core.timm_models import check_name, imagenet_names, make
from lse_core.weights import load_weights

__all__ = ["Subject", "is_name", "loaded", "named", "subject"]

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
FREE = (256, 256)  # height and width of the blank picture on which a model is tried that takes any size


@dataclass
class Subject:
    """A model, and how to ask it.

    Attributes:
        name: what it is called in the report.
        module: in eval mode on `device`.
        preprocess: how pictures become its input.
        class_names: names of its classes, if they have names.
        device: where it runs.
        task: "classification" for scores (B, classes), "segmentation" for (B, classes, h, w).
        classes: number of classes.
    """

    name: str
    module: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...] | None
    device: torch.device
    task: Literal["classification", "segmentation"] = field(init=False)
    classes: int = field(init=False)

    def __post_init__(self) -> None:
        size = self.preprocess.size or FREE
        try:
            out = self._scores(torch.full((1, self.preprocess.channels, *size), 0.5))
        except LSEError:
            raise
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise LSEError(
                f"the model {self.name} cannot take pictures of {self.preprocess.channels} channels and "
                f"{size[0]} x {size[1]} pixels: {' '.join(str(error).split())[:200]}"
            ) from error
        if out.ndim not in (2, 4) or not out.is_floating_point():
            raise LSEError(
                f"the model {self.name} must answer with class scores (batch, classes), or (batch, classes, "
                f"height, width) of a segmentor; it gives {tuple(out.shape)} of {out.dtype}"
            )
        self.task, self.classes = "classification" if out.ndim == 2 else "segmentation", out.shape[1]
        if self.classes < 2:
            raise LSEError(f"the model {self.name} gives a single score, and so tells no classes apart")
        if self.class_names is not None and len(self.class_names) > self.classes:
            raise DataError(
                f"there are {len(self.class_names)} class names, but the model {self.name} tells "
                f"{self.classes} classes apart"
            )

    def probabilities(self, images: Tensor) -> Tensor:
        """Softmax of the scores, float64 on the CPU, of prepared images (B, C, h, w) in [0, 1]."""
        return self._scores(images).double().softmax(1).cpu()

    def normalised(self, images: Tensor) -> Tensor:
        """The model's input, on its device and in its dtype, of prepared images (B, C, h, w) in [0, 1]."""
        dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)
        return self.preprocess.normalise(images.to(self.device)).to(dtype)

    def _scores(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            out = self.module(self.normalised(images))
        # transformers answer with an object that holds the scores
        found = out if isinstance(out, Tensor) else getattr(out, "logits", None)
        if not isinstance(found, Tensor):
            raise LSEError(
                f"the model {self.name} answers with a {type(out).__name__}, not with class scores"
            )
        if found.ndim == 4 and found.shape[2:] != images.shape[2:]:
            found = nn.functional.interpolate(found.float(), images.shape[2:], mode="bilinear")
        return found

    def identity(self) -> str:
        """A hash of the weights and settings: another one for another model."""
        digest = hashlib.sha256()
        settings = getattr(self.module, "settings", None), getattr(self.module, "mode", None)
        for text in (type(self.module).__qualname__, getattr(self.module, "fingerprint", ""), settings):
            digest.update(f"{text!r}\n".encode())
        for name, tensor in self.module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def loaded(path: Path, *, trust: bool = False) -> nn.Module | None:
    """The model that a plugin's loader finds at `path`, or None where none knows it.

    Raises:
        LSEError: the model is damaged, or loading it needs trust.
    """
    for _, loader in registry().items("loader"):
        found: nn.Module | None = loader(path, trust=trust)
        if found is not None:
            return found
    return None


def named(
    name: str,
    *,
    pretrained: bool = False,
    weights: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> nn.Module:
    """The model that a name stands for, which is no file or folder.

    Args:
        name: a timm model, or "module:function", where the function returns a torch module.
        pretrained: load timm's own weights for the name, which may need the network.
        weights: a file of weights for the timm model.
        settings: keywords of `timm.create_model`.
        trust: import and call the function.

    Raises:
        LSEError: no such model, no weights, or no trust.
    """
    if FACTORY.fullmatch(name):
        if pretrained or weights is not None or settings:
            raise LSEError(
                f"{name} is a function, which gives its model weights itself: weights go with timm names"
            )
        if not trust:
            raise LSEError(
                f"the model is made by the function {name!r}, which would be imported and called: if you "
                "trust it, pass trust=True (--trust)"
            )
        return _called(name)
    if not (pretrained or weights is not None):
        make(name, settings or {}, trust=True)  # says first if there is no such model
        raise LSEError(
            f"{name} alone has random weights, and measuring them says nothing: give --weights FILE, or "
            "--pretrained for timm's own, which may need the network"
        )
    model = make(name, settings or {}, pretrained=pretrained, trust=True)
    if weights is not None:
        load_weights(model, weights)
    attach(model, class_names=imagenet_names(model))
    return model


def is_name(text: str) -> bool:
    """Whether `named` knows what `text` stands for: a timm model, or anything like "module:function"."""
    if FACTORY.fullmatch(text):
        return True
    try:
        check_name(text)
    except UnknownNameError:
        return False
    return True


def _called(name: str) -> nn.Module:
    try:
        model = import_object(name, "the model")()
    except LSEError:
        raise
    except Exception as error:  # whatever a stranger's function raises
        raise LSEError(
            f"{name} raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(model, nn.Module):
        raise LSEError(f"{name} returned a {type(model).__name__}, and must return a torch module")
    return model


def subject(
    module: nn.Module,
    name: str,
    *,
    preprocess: Preprocess | None = None,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    class_names: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> Subject:
    """A model ready to be measured.

    Args:
        module: the model; it is left in eval mode on `device`.
        name: what to call it.
        preprocess: how its pictures are prepared; None takes what the model says.
        size: (height, width); this, `mean` and `std` count only for a model that does not say how its
            pictures are prepared. Whole pictures are then squashed to this size.
        mean: of pixels in [0, 1], one number or one for each channel.
        std: likewise.
        class_names: in the place of those on the model's card.
        device: where to run it.

    Raises:
        LSEError: nothing says how pictures are prepared, or the model takes no pictures.
    """
    how = preprocess or preprocess_of(module)
    if how is None:
        channels, own = channels_and_size(module)
        size = own or size
        if size is None or not mean or not std:
            missing = [
                *([] if size else ["--size"]),
                *([] if mean else ["--mean"]),
                *([] if std else ["--std"]),
            ]
            raise LSEError(
                f"the model {name} does not say how its pictures are prepared: give {', '.join(missing)} "
                "(mean and std of pixels in [0, 1])"
            )
        values = {"channels": channels or 3, "size": size, "crop_mode": "squash"}
        numbers = {
            key: tuple(given) * ((channels or 3) if len(given) == 1 else 1)
            for key, given in (("mean", mean), ("std", std))
        }
        how = validated(Preprocess, {**values, **numbers}, f"preprocessing of {name}")
    names = class_names if class_names is not None else card_of(module).class_names
    place = torch.device(device)
    return Subject(name, module.eval().to(place), how, None if names is None else tuple(names), place)
