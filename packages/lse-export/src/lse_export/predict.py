"""Class scores of pictures, from an exported file by ONNX Runtime or from a saved model by torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lse_core.card import card_of
from lse_core.errors import LSEError, LSEWarning
from lse_core.pictures import PictureError
from lse_export.errors import ExportError
from lse_export.loading import load_model
from lse_export.onnx_model import OnnxModel, with_numbers
from lse_export.preprocess import preprocessing_of
from lse_export.runtime import TensorrtOptions

__all__ = ["Prediction", "predict"]


@dataclass(frozen=True)
class Prediction:
    """The best classes of one picture.

    Attributes:
        file: the picture.
        classes: names (or numbers, where the model has no names), best first; empty for a picture that was
            skipped.
        probabilities: softmax of the first output, in the same order.
        error: why the picture was skipped, else "".
    """

    file: Path
    classes: list[str]
    probabilities: list[float]
    error: str = ""


def predict(
    model: str | Path | nn.Module,
    pictures: Sequence[Path],
    *,
    top: int = 5,
    batch: int = 16,
    provider: str = "cpu",
    tensorrt: TensorrtOptions | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    skip_bad: bool = False,
    trust: bool = False,
    on_picture: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Classify pictures. The model itself says how they are prepared and what its classes are called.

    Args:
        model: an ONNX file whose first output is class scores (B, classes) and whose image size is fixed; a
            folder with a trained or saved model; or such a model.
        pictures: files of pictures.
        top: how many classes to name.
        batch: pictures a call; a file with a fixed batch size takes its own.
        provider: ONNX Runtime's execution provider.
        tensorrt: for the provider of that name.
        mean: by channel, of values in [0, 1]; one number stands for all channels. None takes the model's.
        std: as `mean`.
        skip_bad: go on after a picture that cannot be read, and say so in its `Prediction`.
        trust: of a folder, see `load_model`.
        on_picture: called with (pictures done, pictures in all).

    Returns:
        A `Prediction` for every picture, in order.

    Raises:
        ExportError: the model cannot be run, is no classifier, or does not say how pictures are prepared.
        PictureError: a picture cannot be read and `skip_bad` is off.
    """
    if top < 1 or batch < 1:
        raise LSEError(f"top and batch must be at least 1; got {top} and {batch}")
    given = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
    if not isinstance(model, nn.Module) and not Path(model).is_dir():
        model = OnnxModel(Path(model), provider, tensorrt)
    elif provider != "cpu" or tensorrt is not None:
        raise ExportError(
            f"the provider {provider!r} runs exported files: export the model first, or leave it out"
        )
    if not isinstance(model, nn.Module):
        model = load_model(Path(model), trust=trust)
    raw = model.facts.raw_pictures() if isinstance(model, OnnxModel) else None
    if isinstance(model, OnnxModel):
        how = model.prepared(given)
    else:
        how = with_numbers(preprocessing_of(model).plain(), given, type(model).__name__)
    found: list[Prediction] = []
    refitted = 0
    size = (model.batch if isinstance(model, OnnxModel) else None) or batch
    for files in (pictures[start : start + size] for start in range(0, len(pictures), size)):
        images, errors = [], {}
        for file in files:
            try:
                image, fits = raw.fitted(file) if raw is not None else (how.read(file), True)
                images.append(image)
                refitted += not fits
            except PictureError as error:
                if not skip_bad:
                    raise
                errors[file] = str(error)
        answers = _answers(model, images, top)
        for file in files:
            names, shares = ([], []) if file in errors else next(answers)
            found.append(Prediction(file, names, shares, errors.get(file, "")))
        if on_picture is not None:
            on_picture(len(found), len(pictures))
    if refitted:
        warnings.warn(
            f"{refitted} of {len(pictures)} pictures do not have the size that the file was made for (see "
            "--preprocess): they were scaled and cut to it first, so answers can differ from the model's",
            LSEWarning,
            stacklevel=2,
        )
    return found


def _answers(model: nn.Module, images: Sequence[Tensor], top: int) -> Iterator[tuple[list[str], list[float]]]:
    """Names and probabilities of the best classes, image by image."""
    if not images:
        return
    scores = _scores(model, torch.stack(list(images)))
    if scores.ndim != 2:
        raise ExportError(f"the first output is {tuple(scores.shape)}, not class scores (batch, classes)")
    count = scores.shape[1]
    names = (
        model.facts.class_names(count) if isinstance(model, OnnxModel) else card_of(model).class_names or ()
    )
    shares, order = scores.float().softmax(1).topk(min(top, count))
    for row, indices in zip(shares.tolist(), order.tolist(), strict=True):
        yield [names[i] if i < len(names) else str(i) for i in indices], row


def _scores(model: nn.Module, images: Tensor) -> Tensor:
    if isinstance(model, OnnxModel):  # bytes are pictures as the file itself takes them
        return model.run(images) if images.dtype == torch.uint8 else model.forward(images)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    with torch.inference_mode():
        out = model(images.to(dtype))
    # transformers answer with an object that holds the scores
    found = out if isinstance(out, Tensor) else getattr(out, "logits", None)
    if not isinstance(found, Tensor):
        raise ExportError(
            f"{type(model).__name__} answers with a {type(out).__name__}, not with class scores"
        )
    return found
