"""Class scores of pictures, from an exported file by ONNX Runtime or from a saved model by torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.card import card_of
from lse_core.errors import LSEError, LSEWarning
from lse_core.pictures import PictureError
from lse_core.preprocess import Preprocess, preprocess_of
from lse_core.settings import validated
from lse_export.errors import ExportError
from lse_export.metadata import class_names_in, limits_in, numbers_in
from lse_export.preprocess import prepared_in, raw_in, raw_picture, shown, told_by
from lse_export.runtime import TensorrtOptions, open_session, run

__all__ = ["Prediction", "predict"]

OnPicture = Callable[[int, int], None]


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
        read: one picture's file as the classifier takes it, with a batch axis of 1, and whether it had the
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
    on_picture: OnPicture | None = None,
) -> list[Prediction]:
    """Classify pictures; how they are prepared and what the classes are called, the model says itself.

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
        ExportError: the model cannot be run, is no classifier, or says nothing of how pictures are prepared.
        PictureError: a picture cannot be read and `skip_bad` is off.
    """
    if top < 1 or batch < 1:
        raise LSEError(f"top and batch must be at least 1; got {top} and {batch}")
    scorer = _open(model, provider, tensorrt, mean, std, trust)
    found: list[Prediction] = []
    refitted = 0
    for files in _chunks(pictures, scorer.fixed or batch):
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


def _chunks(pictures: Sequence[Path], size: int) -> Iterator[list[Path]]:
    for start in range(0, len(pictures), size):
        yield list(pictures[start : start + size])


def _answers(scorer: _Scorer, images: Sequence[Tensor], top: int) -> Iterator[tuple[list[str], list[float]]]:
    """Names and probabilities of the best classes, image by image."""
    if not images:
        return
    stacked = torch.cat(list(images))
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


def _open(
    model: str | Path | nn.Module,
    provider: str,
    tensorrt: TensorrtOptions | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    trust: bool,
) -> _Scorer:
    if isinstance(model, nn.Module) or Path(model).is_dir():
        from lse_export.loading import load_model

        if provider != "cpu" or tensorrt is not None:
            raise ExportError(f"{provider!r} runs exported files; export the model first, or leave it out")
        loaded = model if isinstance(model, nn.Module) else load_model(Path(model), trust=trust)
        return _of_model(loaded, mean, std)
    return _of_file(Path(model), provider, tensorrt, mean, std)


def _of_model(model: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> _Scorer:
    what = type(model).__name__
    preprocess = _over(preprocess_of(model), mean, std, what)
    if preprocess is None:
        raise ExportError(
            f"{what} does not say how its pictures are prepared: save it with "
            "lse_dec.save(..., preprocess=...)"
        )
    from lse_export.loading import dtype_of

    dtype = dtype_of(model)

    def scores(images: Tensor) -> Tensor:
        with torch.inference_mode():
            out = model(images.to(dtype))
        # transformers answer with an object that holds the scores
        found = out if isinstance(out, Tensor) else getattr(out, "logits", None)
        if not isinstance(found, Tensor):
            raise ExportError(f"{what} answers with a {type(out).__name__}, not with class scores")
        return found

    return _Scorer(partial(_prepared, preprocess), scores, lambda count: card_of(model).class_names or ())


def _of_file(
    path: Path,
    provider: str,
    tensorrt: TensorrtOptions | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> _Scorer:
    session = open_session(path, provider, tensorrt=tensorrt)
    facts, takes = told_by(path)
    shape = takes[1]
    fixed = shape[0] if shape else None
    raw = raw_in(facts, str(path), takes)
    names = partial(class_names_in, facts, str(path))
    names()  # before the work

    def scores(images: Tensor) -> Tensor:
        return next(iter(run(session, images).values()))

    if raw is not None:
        if mean is not None or std is not None:
            raise ExportError(f"{path} normalises pictures itself; leave mean and std out")

        def read(file: Path) -> tuple[Tensor, bool]:
            picture, fits = raw_picture(file, raw)
            return picture[None], fits

        return _Scorer(read, scores, names, fixed)
    preprocess = prepared_in(facts, str(path))
    # sizes that the file leaves open are as the model was trained
    own = (preprocess.channels, *(preprocess.size or (None, None))) if preprocess else (None,) * 3
    sides = [a if a is not None else b for a, b in zip(shape[1:], own, strict=False)]
    if len(shape) != 4 or None in sides:
        raise ExportError(
            f"{path} takes {shown(shape)}, not images of a size that it says itself; "
            "export it without --dynamic-size"
        )
    if any(b is not None and a != b for a, b in zip(sides, own, strict=True)):
        raise ExportError(
            f"{path} takes images {shown(shape)}, but its metadata prepare {own[0]} channels of "
            f"{own[1:]}; export it again"
        )
    for side, have in zip(("height", "width"), sides[1:], strict=True):
        least, most = limits_in(facts, side, str(path))
        if have is None or not least <= have <= (most or have):
            raise ExportError(f"{path}: its metadata lse.{side} and lse.preprocess differ; export it again")
    if preprocess is None:
        preprocess = _assumed(sides, facts, mean, std, str(path))
    elif preprocess.size is None:
        preprocess = validated(Preprocess, {**preprocess.plain(), "size": sides[1:]}, str(path))
    preprocess = _over(preprocess, mean, std, str(path))
    if preprocess is None:
        raise ExportError(f"{path} says nothing of how images are normalised; give mean and std")
    return _Scorer(partial(_prepared, preprocess), scores, names, fixed)


def _prepared(preprocess: Preprocess, file: Path) -> tuple[Tensor, bool]:
    return preprocess.read(file)[None], True


def _over(
    known: Preprocess | None, mean: Sequence[float] | None, std: Sequence[float] | None, where: str
) -> Preprocess | None:
    """`known` with the numbers given in the place of its own."""
    if known is None:
        return None
    values: dict[str, Any] = known.plain()
    for name, given in (("mean", mean), ("std", std)):
        if given is not None:
            values[name] = list(given) * (known.channels if len(given) == 1 else 1)
    return validated(Preprocess, values, where)


def _assumed(
    sides: Sequence[int | None],
    facts: dict[str, str],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    where: str,
) -> Preprocess | None:
    """For files of other makers, and of an older version: whole pictures, squashed to the input's size."""
    numbers = {
        name: given if given is not None else numbers_in(facts, f"lse.{name}", where)
        for name, given in (("mean", mean), ("std", std))
    }
    values: dict[str, Any] = {"channels": sides[0], "size": tuple(sides[1:]), "crop_mode": "squash"}
    for name, value in numbers.items():
        if value is None:
            return None
        values[name] = list(value) * ((sides[0] or 1) if len(value) == 1 else 1)
    return validated(Preprocess, values, "mean and std")
