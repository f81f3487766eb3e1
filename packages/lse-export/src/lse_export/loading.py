"""Trained models for the commands, and images for them: by the loaders of plugins."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError, LSEWarning
from lse_core.moved import moved_names
from lse_core.pictures import PictureError, picture_files
from lse_core.plugins import registry
from lse_core.preprocess import Preprocess, channels_and_size, preprocess_of
from lse_export.errors import ExportError
from lse_export.metadata import facts_of
from lse_export.preprocess import RawPictures, preprocessing_of

__all__ = ["check_preprocess", "images_for", "load_model"]
__getattr__ = moved_names(__name__)


def load_model(path: Path, *, trust: bool = False) -> nn.Module:
    """The trained model at `path`, in eval mode, from the first plugin whose loader knows it.

    Args:
        path: a folder that `lse_dec.save`, `lse train` or `lse demo` wrote, or what another plugin knows.
        trust: let the loader import and call what the files name.

    Raises:
        ExportError: the path does not exist, or no plugin recognises it.
        LSEError: the model is damaged, or loading it needs trust.
    """
    if path.suffix.lower() == ".onnx" and path.is_file():
        raise ExportError(f"{path} is an exported file; give the trained or saved model that it was made of")
    for _, loader in registry().items("loader"):
        found: nn.Module | None = loader(path, trust=trust)
        if found is not None:
            return found.eval()
    if not path.exists():
        raise ExportError(f"{path}: no such file or folder; give the folder of a trained or saved model")
    known = ", ".join(registry().names("loader")) or "none; pip install lse-dec"
    raise ExportError(f"{path} holds no model that an installed package can load (loaders: {known})")


def images_for(
    model: nn.Module,
    size: tuple[int, int] | None = None,
    images: Sequence[Path] = (),
    limit: int = 64,
    file: Path | None = None,
) -> Tensor:
    """A batch as `model` takes it: the pictures given (at most `limit`), or two made-up images.

    Given an ONNX `file` that prepares pictures itself, what that takes: raw ones. Pictures that cannot be
    read are left out with a warning.

    Raises:
        ExportError: the model does not say what size it takes or, with pictures, how they are prepared.
        PictureError: none of the files is a picture.
    """
    how: RawPictures | Preprocess | None = facts_of(file).raw_pictures() if file is not None else None
    how = how or _preprocess(model, size, bool(images))
    if not images:
        return how.sample()
    found: list[Tensor] = []
    bad: list[PictureError] = []
    for picture in picture_files(images):
        if len(found) == limit:
            break
        try:
            found.append(how.read(picture))
        except PictureError as error:
            bad.append(error)
    seen = len(found) + len(bad)
    if not found:
        raise PictureError(f"none of {seen} pictures can be read; {bad[0]}") from bad[0]
    if bad:
        warnings.warn(f"left out {len(bad)} of {seen} pictures; {bad[0]}", LSEWarning, stacklevel=2)
    if len({image.shape for image in found}) > 1:
        raise LSEError("the pictures differ in size, and the model takes any: give one size for all")
    return torch.stack(found)


def _preprocess(model: nn.Module, size: tuple[int, int] | None, pictures: bool) -> Preprocess:
    """How the model prepares pictures; where it does not say and there are none, what it takes suffices."""
    found = preprocess_of(model, size)
    if found is not None or pictures:
        return found or preprocessing_of(model)
    channels, own = channels_and_size(model)
    side = size or own
    if channels is None or side is None:
        raise ExportError(
            f"{type(model).__name__} does not say what images it takes; give a size, or save it with "
            "lse_dec.save(..., preprocess=...)"
        )
    return Preprocess(channels=channels, size=side, mean=(0.0,) * channels, std=(1.0,) * channels)


def check_preprocess(model: nn.Module, file: Path) -> None:
    """Refuse a file that prepares pictures in another way than its model; their size may differ.

    Raises:
        LSEError: names what differs.
    """
    told, own = facts_of(file).preprocess(), preprocess_of(model)
    if told is None or own is None:
        return
    theirs = told.plain()
    for name, value in own.plain().items():
        if name != "size" and (other := theirs[name]) != value:
            raise LSEError(
                f"{file} says that pictures are prepared with {name} {other}, the model says {value}: "
                "the two do not belong together, or one was changed; export the model again"
            )
