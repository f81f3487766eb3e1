"""The folder of a playground: the page, the models, and the pictures as each model takes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lse_core.atomic import staging
from lse_core.errors import LSEError, OutputError
from lse_core.pictures import PictureError
from lse_core.preprocess import Preprocess
from lse_data.items import Item, items_of
from lse_data.masks import find_marks
from lse_measure.play.runtime import copy_runtime
from lse_measure.scenes import Scene, open_scene
from lse_measure.subjects import Subject, loaded, subject

__all__ = ["MOST", "Written", "write_playground"]

TOLD = "play.json"
MOST = 60  # pictures; the page shows them all in a row
KINDS = ("float32", "float64", "uint8")  # types of an input that JavaScript has arrays for
VIEW = ("channels", "size", "crop_mode", "crop_pct", "interpolation")
"""What of a preprocessing decides which pixels a model gets; models that agree in it share their pictures."""


@dataclass
class Written:
    """What was written.

    Attributes:
        folder: with index.html in it.
        pictures: names of the pictures on the page.
        problems: a sentence for each picture, mask or box that was left out.
    """

    folder: Path
    pictures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def write_playground(
    models: Sequence[str | Path],
    pictures: Sequence[str | Path],
    out: str | Path,
    *,
    runtime: Path | None = None,
    masks: str = "beside",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    size: tuple[int, int] | None = None,
    class_names: Sequence[str] | None = None,
    on_picture: Callable[[int, int], None] | None = None,
) -> Written:
    """Write a folder of static files that any web server can show.

    A folder that an earlier call wrote is replaced; after an error it is as it was.

    Args:
        models: ONNX files of classifiers that take images alone. Those that
            `lse_export.export_onnx(..., with_warps=True)` wrote also show what their canonicalizers find.
        pictures: files and folders of pictures.
        out: the folder.
        runtime: folder with ONNX Runtime Web, see `find_runtime`; None leaves it out, and the page
            asks for it.
        masks: where objects are, see `lse_data.masks.find_marks`.
        mean: of pixels in [0, 1], for models that do not say it; once, or for each channel.
        std: likewise.
        size: (height, width) in pixels, likewise.
        class_names: for all models, in the place of those that the files name.
        on_picture: called with (pictures done, pictures in all).

    Raises:
        LSEError: a model is no ONNX file of a classifier, or no picture can be read.
        OutputError: `out` holds something else, or cannot be written.
    """
    out = Path(out)
    if out.exists() and not (out / TOLD).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is no folder of lse play: choose another --out")
    options = {"mean": mean, "std": std, "size": size, "class_names": class_names}
    subjects = [_classifier(Path(model), **options) for model in models]
    items = items_of(list(pictures))
    if len(items) > MOST:
        raise LSEError(f"the page shows up to {MOST} pictures, and {len(items)} were given: name fewer")
    marks = find_marks(masks)
    views: list[dict[str, Any]] = []
    for one in subjects:
        if (view := _view(one.preprocess)) not in views:
            views.append(view)
    written = Written(out)
    with staging(out) as partial:
        made = partial / "made"
        with as_file(files("lse_measure.play").joinpath("web")) as web:
            shutil.copytree(web, made)
        (made / "pictures").mkdir()
        told: dict[str, Any] = {"models": [], "pictures": []}
        for number, (path, one) in enumerate(zip(map(Path, models), subjects, strict=True)):
            told["models"].append(_model(path, one, made, number, views.index(_view(one.preprocess))))
        hows = [next(s.preprocess for s in subjects if _view(s.preprocess) == view) for view in views]
        for item in items:
            try:
                scene = open_scene(item, None if masks == "none" else marks)
            except PictureError as error:
                written.problems.append(str(error))
                continue
            written.problems += scene.problems
            number = len(told["pictures"])
            told["pictures"].append(_picture(scene, item, hows, made, number))
            written.pictures.append(item.name)
            if on_picture is not None:
                on_picture(number + 1, len(items))
        if not written.pictures:
            raise LSEError(f"none of the {len(items)} pictures can be read: {written.problems[0]}")
        if runtime is not None:
            copy_runtime(runtime, made / "ort")
        (made / TOLD).write_text(json.dumps(told, ensure_ascii=False) + "\n", encoding="utf-8")
        if out.exists():
            out.replace(partial / "before")
        made.replace(out)
    return written


def _classifier(path: Path, **options: Any) -> Subject:
    """The model in an ONNX file, ready to tell how it takes pictures."""
    if path.is_dir():
        raise LSEError(
            f"{path} is a folder: write its model as ONNX first, "
            f"lse export onnx {path} --out model.onnx --warps"
        )
    if not path.is_file():
        raise LSEError(f"{path}: there is no such file")
    module = loaded(path)
    if module is None:
        raise LSEError(f"{path} is no ONNX file, or lse-export, which reads these, is not installed")
    one = subject(module, path.stem, **options)
    if one.task != "classification":
        raise LSEError(f"{path} is a segmentor; the page shows class scores")
    if one.preprocess.size is None:
        raise LSEError(f"{path} takes pictures of any size: give --size")
    facts: Any = module.facts
    kind = facts.kind
    if kind not in KINDS:
        raise LSEError(f"{path} takes {kind}, which browsers do not have: export it with a float32 input")
    return one


def _view(how: Preprocess) -> dict[str, Any]:
    values = how.plain()
    return {name: values[name] for name in VIEW}


def _model(path: Path, one: Subject, folder: Path, number: int, view: int) -> dict[str, Any]:
    """Copy a model and say what the page must know of it."""
    how = one.preprocess
    module: Any = one.module
    facts = module.facts
    name = f"model{number}.onnx"
    shutil.copyfile(path, folder / name)
    weights = []
    for part, file in enumerate(module.weights):  # beside the model, as lse-export has checked
        copied = f"model{number}-{part}.data"
        shutil.copyfile(path.with_name(file), folder / copied)
        weights.append({"path": file, "data": copied})
    channels_last = facts.shape[3] == how.channels and facts.shape[1] != how.channels
    return {
        "name": one.name,
        "file": name,
        "weights": weights,
        "type": facts.kind,
        "channels": how.channels,
        "layout": "nhwc" if channels_last else "nchw",
        "batch": facts.shape[0],
        "mean": how.mean,
        "std": how.std,
        "colours": how.colours,
        "classNames": None if one.class_names is None else list(one.class_names),
        "adapted": "lse.sites" in facts.metadata,
        "view": view,
    }


def _picture(
    scene: Scene, item: Item, hows: Sequence[Preprocess], folder: Path, number: int
) -> dict[str, Any]:
    """Write a picture, its background and the masks of its objects, as each kind of model takes them."""
    from lse_data.compositing import filled_in, hole_around

    masks = [cutout.silhouette(1.0, 1.0)[..., 0] > 127 for _, _, cutout in scene.objects]
    whole = np.asarray(scene.picture) if not masks else scene.small
    behind = filled_in(whole, np.any([hole_around(mask) for mask in masks], axis=0)) if masks else None
    views = []
    for kind, how in enumerate(hows):
        stem = f"pictures/{number}-{kind}"

        def save(pixels: NDArray[np.uint8], what: str, how: Preprocess = how, stem: str = stem) -> str:
            name = f"{stem}{what}.png"
            Image.fromarray(_prepared(pixels, how)).save(folder / name)
            return name

        named = [
            (label or f"object {k + 1}", mask)
            for (k, label, _), mask in zip(scene.objects, masks, strict=True)
        ]
        views.append(
            {
                "image": save(whole, ""),
                "background": None if behind is None else save(behind, "-background"),
                "masks": [
                    {
                        "name": label,
                        "file": save(np.repeat(255 * mask[..., None].astype(np.uint8), 3, 2), f"-{k}"),
                    }
                    for k, (label, mask) in enumerate(named)
                ],
            }
        )
    return {"name": item.name, "views": views}


def _prepared(pixels: NDArray[np.uint8], how: Preprocess) -> NDArray[np.uint8]:
    """An RGB picture resized and cropped for a model, RGB or grey."""
    picture = Image.fromarray(pixels).convert("L" if how.channels == 1 else "RGB")
    found = how.pixels(picture)
    if how.channels == 1:
        return found[..., 0]
    return found[..., ::-1] if how.colours == "bgr" else found
