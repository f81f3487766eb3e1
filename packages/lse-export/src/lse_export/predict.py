"""Class scores of pictures from an exported file, with nothing but ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from lse_core.errors import LSEError
from lse_export.errors import ExportError
from lse_export.images import Preparation, read_images
from lse_export.metadata import read_metadata
from lse_export.preprocess import Recipe, raw_pictures
from lse_export.runtime import TensorrtOptions, open_session, run

__all__ = ["Prediction", "predict"]


@dataclass(frozen=True)
class Prediction:
    """The best classes of one picture.

    Attributes:
        file: the picture.
        classes: names (or numbers, where the file has no names), best first.
        probabilities: softmax of the first output, in the same order.
    """

    file: Path
    classes: list[str]
    probabilities: list[float]


def predict(
    path: str | Path,
    pictures: Sequence[Path],
    *,
    top: int = 5,
    batch: int = 16,
    provider: str = "cpu",
    tensorrt: TensorrtOptions | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> list[Prediction]:
    """Classify pictures with an exported classifier.

    Args:
        path: an ONNX file whose first output is class scores (B, classes) and whose image size is fixed.
        pictures: files of pictures.
        top: how many classes to name.
        batch: pictures a call; a file with a fixed batch size takes its own.
        provider: ONNX Runtime's execution provider.
        tensorrt: for the provider of that name.
        mean: by channel, of values in [0, 1]; None takes the file's metadata, which `export_onnx`
            writes for timm models.
        std: as `mean`.

    Raises:
        ExportError: the file cannot be run, is no classifier, or says nothing of normalisation.
    """
    if top < 1 or batch < 1:
        raise LSEError(f"top and batch must be at least 1; got {top} and {batch}")
    session = open_session(path, provider, tensorrt=tensorrt)
    facts = read_metadata(onnx.load_model(path, load_external_data=False))
    size = session.get_inputs()[0].shape
    recipe = Recipe.from_json(facts["lse.preprocess"]) if "lse.preprocess" in facts else None
    if recipe is not None and (mean is not None or std is not None):
        raise ExportError(f"{path} normalises pictures itself; leave mean and std out")
    read = _prepared(path, size, facts, mean, std) if recipe is None else partial(raw_pictures, recipe=recipe)
    names = json.loads(facts.get("lse.class_names", "[]"))
    step = size[0] if isinstance(size[0], int) else batch
    found = []
    for start in range(0, len(pictures), step):
        files = list(pictures[start : start + step])
        images = read(files)
        if isinstance(size[0], int) and len(files) < step:
            images = torch.cat([images, images[:1].expand(step - len(files), -1, -1, -1)])
        scores = next(iter(run(session, images).values()))
        if scores.ndim != 2:
            raise ExportError(
                f"{path}: the first output is {tuple(scores.shape)}, not scores (batch, classes)"
            )
        shares, order = scores[: len(files)].float().softmax(1).topk(min(top, scores.shape[1]))
        for file, row, indices in zip(files, shares.tolist(), order.tolist(), strict=True):
            found.append(Prediction(file, [names[i] if i < len(names) else str(i) for i in indices], row))
    return found


def _prepared(
    path: str | Path,
    size: list[Any],
    facts: dict[str, str],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Callable[[Sequence[Path]], Tensor]:
    """How pictures are read for a file that takes them prepared."""
    if len(size) != 4 or not all(isinstance(n, int) for n in size[1:]):
        raise ExportError(f"{path}: the input is {size}, not images of a fixed size")
    mean = mean if mean is not None else json.loads(facts.get("lse.mean", "null"))
    std = std if std is not None else json.loads(facts.get("lse.std", "null"))
    if mean is None or std is None:
        raise ExportError(f"{path} says nothing of how images are normalised; give mean and std")
    if len(mean) != size[1] or len(std) != size[1]:
        raise ExportError(f"mean and std must have {size[1]} values; got {len(mean)} and {len(std)}")
    preparation = Preparation(size[1], size[2], size[3], tuple(mean), tuple(std))
    return partial(read_images, preparation=preparation)
