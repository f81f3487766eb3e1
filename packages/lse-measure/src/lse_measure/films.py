"""The worst cases as strips of small pictures: what the model saw at each level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lse_core.preprocess import Preprocess
from lse_data.items import Item
from lse_data.masks import Marks
from lse_measure.measurement import Film, Sweep
from lse_measure.scenes import open_scene
from lse_measure.sweeps import Plan, Views, views_of

__all__ = ["films_of"]

LONGER = 160  # pixels of the longer side of a frame


def films_of(
    sweep: Sweep, items: Mapping[str, Item], marks: Marks, preprocess: Preprocess, plan: Plan
) -> Sweep:
    """The sweep with the films of its worst cases, made anew from their pictures.

    Args:
        sweep: whose `worst` cases are shown.
        items: the pictures by name.
        marks: where their objects are.
        preprocess: how the model's pictures are prepared.
        plan: as measured.
    """
    films = []
    for index in sweep.worst:
        case = sweep.cases[index]
        item = items[case.picture]
        scene = open_scene(item, marks if sweep.change == "objects" else None)
        for views in views_of(scene, item.name, preprocess, plan, [sweep.change]):
            if views.number == case.number:
                films.append(Film(case=index, frames=_frames(views, preprocess)))
                break
    return sweep.model_copy(update={"films": tuple(films)})


def _frames(views: Views, preprocess: Preprocess) -> NDArray[np.uint8]:
    return np.stack([_frame(views.image(key), preprocess) for key in views.levels])


def _frame(image: Tensor, preprocess: Preprocess) -> NDArray[np.uint8]:
    if preprocess.colours == "bgr":
        image = image.flip(0)
    image = image.expand(3, -1, -1)
    share = min(1.0, LONGER / max(image.shape[1:]))
    size = (max(1, round(image.shape[1] * share)), max(1, round(image.shape[2] * share)))
    small = torch.nn.functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    frame: NDArray[np.uint8] = (small.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return frame
