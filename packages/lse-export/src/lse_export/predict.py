"""Class scores of pictures, from an exported file by ONNX Runtime or from a saved model by torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.card import card_of
from lse_core.errors import LSEError, LSEWarning
from lse_core.pictures import PictureError
from lse_core.preprocess import Preprocess
from lse_core.settings import validated
from lse_export.errors import ExportError
from lse_export.loading import load_model
from lse_export.metadata import FileFacts, facts_of, shown
from lse_export.preprocess import preprocessing_of
from lse_export.runtime import TensorrtOptions, open_session, run

__all__ = ["Prediction", "predict", "preprocess_in"]


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


@dataclass(frozen=True)
class _Scorer:
    """A classifier, whatever runs it.

    Attributes:
        read: one picture's file as the classifier takes it, without the batch axis, and whether it had the
            size that the classifier was made for.
        scores: a batch to class scores (B, classes).
        names: of so many classes; classes beyond the last name are called by their number.
        fixed: the batch size, where only one is taken.
    """

    read: Callable[[Path], tuple[Tensor, bool]]
    scores: Callable[[Tensor], Tensor]
    names: Callable[[int], Sequence[str]]
    fixed: int | None = None


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
        scorer = _of_file(Path(model), provider, tensorrt, given)
    elif provider != "cpu" or tensorrt is not None:
        raise ExportError(
            f"the provider {provider!r} runs exported files: export the model first, or leave it out"
        )
    else:
        loaded = model if isinstance(model, nn.Module) else load_model(Path(model), trust=trust)
        scorer = _of_model(loaded, given)
    found: list[Prediction] = []
    refitted = 0
    size = scorer.fixed or batch
    for files in (pictures[start : start + size] for start in range(0, len(pictures), size)):
        images, errors = [], {}
        for file in files:
            try:
                image, fits = scorer.read(file)
                images.append(image)
                refitted += not fits
            except PictureError as error:
                if not skip_bad:
                    raise
                errors[file] = str(error)
        answers = _answers(scorer, images, top)
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


def _answers(scorer: _Scorer, images: Sequence[Tensor], top: int) -> Iterator[tuple[list[str], list[float]]]:
    """Names and probabilities of the best classes, image by image."""
    if not images:
        return
    stacked = torch.stack(list(images))
    if scorer.fixed is not None:
        missing = scorer.fixed - len(stacked)
        stacked = torch.cat([stacked, stacked[:1].expand(missing, -1, -1, -1)])
    scores = scorer.scores(stacked)
    if scores.ndim != 2:
        raise ExportError(f"the first output is {tuple(scores.shape)}, not class scores (batch, classes)")
    names = scorer.names(scores.shape[1])
    shares, order = scores[: len(images)].float().softmax(1).topk(min(top, scores.shape[1]))
    for row, indices in zip(shares.tolist(), order.tolist(), strict=True):
        yield [names[i] if i < len(names) else str(i) for i in indices], row


def _of_model(model: nn.Module, given: Mapping[str, Sequence[float]]) -> _Scorer:
    what = type(model).__name__
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    preprocess = _with(preprocessing_of(model).plain(), given, what)

    def scores(images: Tensor) -> Tensor:
        with torch.inference_mode():
            out = model(images.to(dtype))
        # transformers answer with an object that holds the scores
        found = out if isinstance(out, Tensor) else getattr(out, "logits", None)
        if not isinstance(found, Tensor):
            raise ExportError(f"{what} answers with a {type(out).__name__}, not with class scores")
        return found

    names = card_of(model).class_names or ()
    return _Scorer(lambda file: (preprocess.read(file), True), scores, lambda count: names)


def _of_file(
    path: Path, provider: str, tensorrt: TensorrtOptions | None, given: Mapping[str, Sequence[float]]
) -> _Scorer:
    session = open_session(path, provider, tensorrt=tensorrt)
    facts = facts_of(path)
    raw = facts.raw_pictures()
    facts.class_names()  # damaged names are refused before the work

    def scores(images: Tensor) -> Tensor:
        return next(iter(run(session, images).values()))

    if raw is not None and given:
        raise ExportError(f"{path} normalises pictures itself; leave mean and std out")
    preprocess = preprocess_in(facts, given) if raw is None else raw.preprocess

    def read(file: Path) -> tuple[Tensor, bool]:
        return raw.fitted(file) if raw is not None else (preprocess.read(file), True)

    return _Scorer(read, scores, facts.class_names, facts.shape[0] if facts.shape else None)


def preprocess_in(facts: FileFacts, given: Mapping[str, Sequence[float]]) -> Preprocess:
    """How the pictures of a file that takes prepared images are prepared; their size must fit the file."""
    told, shape, path = facts.preprocess(), facts.shape, facts.where
    # sizes that the file leaves open are as the model was trained
    own = (told.channels, *(told.size or (None, None))) if told else (None,) * 3
    sides = [a if a is not None else b for a, b in zip(shape[1:], own, strict=False)]
    if len(shape) != 4 or None in sides:
        raise ExportError(
            f"{path} takes {shown(shape)} and does not say of what size images must be; "
            "export it without --dynamic-size"
        )
    if any(b is not None and a != b for a, b in zip(sides, own, strict=True)):
        raise ExportError(
            f"{path} takes images {shown(shape)}, but its metadata prepare {own[0]} channels of "
            f"{own[1:]}; export it again"
        )
    for side, have in zip(("height", "width"), sides[1:], strict=True):
        least, most = facts.limits(side)
        if have is None or not least <= have <= (most or have):
            raise ExportError(f"{path}: its metadata lse.{side} and lse.preprocess differ; export it again")
    if told is not None:
        return _with({**told.plain(), "size": sides[1:]}, given, path)
    # files of other makers, and of an older version: whole pictures, squashed to the input's size
    numbers = {name: given.get(name) or facts.numbers(f"lse.{name}") for name in ("mean", "std")}
    if None in numbers.values():
        raise ExportError(f"{path} does not say how images are normalised; give mean and std")
    values = {"channels": sides[0], "size": sides[1:], "crop_mode": "squash"}
    return _with(values, {name: value for name, value in numbers.items() if value}, path)


def _with(values: Mapping[str, Any], given: Mapping[str, Sequence[float]], where: str) -> Preprocess:
    """The preprocessing `values` with the numbers that were given; one number stands for all channels."""
    spread = {k: list(v) * (values["channels"] if len(v) == 1 else 1) for k, v in given.items()}
    return validated(Preprocess, {**values, **spread}, where)
