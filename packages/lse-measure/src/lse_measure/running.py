"""Models over pictures, one picture after the other: from files to a `Measurement`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lse_core.errors import DataError, LSEError, unknown_name
from lse_core.modes import evaluating
from lse_core.pictures import PictureError, read_picture
from lse_core.preprocess import Preprocess
from lse_core.settings import validated
from lse_data.items import Item, digest_of, items_of
from lse_data.masks import Marks, find_marks
from lse_measure.answers import classified, segmented
from lse_measure.films import films_of
from lse_measure.labels import read_label_map, read_labels
from lse_measure.layers import measure_layers
from lse_measure.measurement import CHANGES, Change, Counts, Layers, Measurement
from lse_measure.rows import Rows
from lse_measure.scenes import Scene, open_scene
from lse_measure.sites import site_means, watching
from lse_measure.statistics import sweep_of
from lse_measure.subjects import Subject, loaded, named, subject
from lse_measure.sweeps import Plan, prepared, views_of

__all__ = ["layers_of", "measure", "measure_subjects"]

PROBLEMS = 10  # told in full
LAYER_PICTURES = 8  # shares of layers hardly change with more


def measure(
    model: nn.Module | str | Path,
    pictures: str | Path | Sequence[str | Path],
    *,
    changes: Sequence[str] | None = None,
    masks: Literal["beside", "none"] | str | Path = "beside",
    labels: str | Path | None = None,
    label_maps: str | Path | None = None,
    preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    pretrained: bool = False,
    trust: bool = False,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    rows: str | Path | None = None,
    layers: bool = False,
    on_picture: Callable[[int, int], None] | None = None,
    **plan: Any,
) -> Measurement:
    """Measure how much a model changes its mind when objects change their size; it is not trained.

    Args:
        model: a classifier or segmentor, whose modes are left as they were; a file or folder that an
            installed package can load (a saved or trained folder, an ONNX file); or the name of a timm model
            or function ("module:function", with `trust`).
        pictures: files and folders of pictures.
        changes: of "objects", "warps" and "rotation" those to measure; None takes "objects", where pictures
            have masks or boxes, and "warps".
        masks: where objects are found, see `lse_data.masks.find_marks`.
        labels: "folders" or a CSV file, see `lse_measure.labels.read_labels`; None measures
            consistency with the first answer alone.
        label_maps: for segmentors, a folder with a PNG of class numbers (255 for none) for each picture.
        preprocess: how pictures are prepared; None takes what the model says.
        class_names: in the place of the model's.
        name: what to call the model in the report.
        pretrained: for the name of a timm model, with timm's weights.
        trust: let a loader import and call what files name, or call the function.
        batch_size: views at once.
        device: where the model runs.
        rows: folder in which every picture's answers are kept at once; the same call goes on where an
            interrupted one stopped, with the same result.
        layers: also measure where the model breaks, see `lse_measure.layers.measure_layers`.
        on_picture: called with (pictures done, pictures in all).
        plan: fields of `lse_measure.sweeps.Plan`: `factors`, `ratios`, `warps`, `segments`, `angles`,
            `orbit`, `seed`.

    Raises:
        LSEError: no pictures, a model that cannot be loaded or takes no pictures, labels of other classes.
    """
    if isinstance(model, nn.Module):
        module, known = model, type(model).__name__
    else:
        known = str(model)
        path = Path(model)
        found = loaded(path, trust=trust) if path.exists() else None
        module = found if found is not None else named(known, pretrained=pretrained, trust=trust)
    settings = validated(Plan, plan, "measure")
    several = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    with evaluating(module):
        one = subject(module, name or known, preprocess=preprocess, class_names=class_names, device=device)
        (measured,) = measure_subjects(
            [one], several, settings, changes=changes, masks=masks, labels=labels, label_maps=label_maps,
            batch_size=batch_size, rows=rows, on_picture=on_picture,
        )  # fmt: skip
        broken = layers_of(one, several, settings.seed) if layers else None
        return measured.model_copy(update={"layers": broken})


def measure_subjects(
    subjects: Sequence[Subject],
    pictures: Sequence[str | Path],
    plan: Plan,
    *,
    changes: Sequence[str] | None = None,
    masks: Literal["beside", "none"] | str | Path = "beside",
    labels: str | Path | None = None,
    label_maps: str | Path | None = None,
    batch_size: int = 32,
    rows: str | Path | None = None,
    on_picture: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Measure several models on the same pictures, which are read and cut out once for all of them.

    Each model's numbers are those that it would have alone. For arguments and errors see `measure`.
    """
    asked = _changes(changes)
    items, marks = items_of(pictures), find_marks(masks)
    told = [_labels(labels, items, one) for one in subjects]
    head = {
        "format": "lse-measure-rows-1",
        "plan": plan.plain(),
        "changes": asked,
        "pictures": digest_of(items, marks),
        "masks": str(masks),
        "label_maps": None if label_maps is None else str(label_maps),
    }
    kept = [
        Rows(
            None if rows is None else Path(rows),
            {**head, "model": one.identity(), "preprocess": one.preprocess.plain()},
        )
        for one in subjects
    ]
    began, count = time.monotonic(), 0
    for done, item in enumerate(items, 1):
        missing = [k for k, own in enumerate(kept) if item.name not in own]
        if missing:
            count += 1
            try:
                scene: Scene | str = open_scene(item, marks if "objects" in asked else None)
            except PictureError as error:
                scene = str(error)
            for k in missing:
                kept[k].add(_row(item, scene, subjects[k], plan, asked, batch_size, label_maps))
        if on_picture is not None:
            on_picture(done, len(items))
    speed = count / (time.monotonic() - began) if count else None
    return [
        _measurement(one, items, marks, own.found, known, plan, changes, speed)
        for one, own, known in zip(subjects, kept, told, strict=True)
    ]


def layers_of(
    one: Subject,
    pictures: Sequence[str | Path],
    seed: int = 0,
    *,
    target: Sequence[str] = (),
    on_batch: Callable[[int, int], None] | None = None,
) -> Layers:
    """Where a model breaks, measured on its first pictures; see `lse_measure.layers.measure_layers`.

    Args:
        one: the model.
        pictures: files and folders of pictures, of which the first eight that can be read are taken.
        seed: of the random fields.
        target: how the command line names the model, for the advice.
        on_batch: called with (batches done, batches in all).

    Raises:
        LSEError: the model does not run in torch, or its layers cannot be measured.
    """
    if next(one.module.parameters(), None) is None:
        raise LSEError(
            f"{one.name} does not run in torch, so its layers cannot be measured: leave --layers out"
        )
    images: list[Tensor] = []
    for item in items_of(pictures):
        try:
            images.append(prepared(np.asarray(read_picture(item.file, 3)), one.preprocess))
        except PictureError:
            continue
        if len(images) == LAYER_PICTURES or one.preprocess.size is None:  # such pictures differ in size
            break
    if not images:
        raise PictureError("no picture can be read, so no layer can be measured")
    return measure_layers(
        one.module, one.normalised(torch.stack(images)), target=target, seed=seed, progress=on_batch
    )


def _changes(changes: Sequence[str] | None) -> list[Change]:
    if changes is None:
        return ["objects", "warps"]
    for change in changes:
        if change not in CHANGES:
            raise unknown_name("change", change, CHANGES)
    return [change for change in CHANGES if change in changes]


def _labels(source: str | Path | None, items: Sequence[Item], one: Subject) -> dict[str, int] | None:
    if source is None:
        return None
    if one.task == "segmentation":
        raise DataError(f"{one.name} is a segmentor: give it label maps (--label-maps), not labels")
    return read_labels(source, [item.name for item in items], one.classes, one.class_names)


def _row(
    item: Item,
    scene: Scene | str,
    one: Subject,
    plan: Plan,
    changes: Sequence[str],
    batch_size: int,
    label_maps: str | Path | None,
) -> dict[str, Any]:
    """What one model answers to one picture, as JSON values."""
    if isinstance(scene, str):
        return {"picture": item.name, "unreadable": scene}
    cases, counts, problems = [], dict(scene.counts), list(scene.problems)
    known: Tensor | None = None
    if label_maps is not None and one.task == "segmentation":
        try:
            known = read_label_map(
                Path(label_maps), item.name, scene.picture.size, one.preprocess,
                (scene.small.shape[0], scene.small.shape[1]), one.classes,
            )  # fmt: skip
        except DataError as error:
            counts["bad_masks"] = counts.get("bad_masks", 0) + 1
            problems.append(str(error))
            known = torch.full(one.preprocess.size or scene.small.shape[:2], -1)
    with watching(one.module, one.preprocess.size) as sums:
        try:
            for views in views_of(scene, item.name, one.preprocess, plan, changes):
                if one.task == "classification":
                    row = classified(views, one.probabilities, batch_size)
                else:
                    row = segmented(views, one.probabilities, batch_size, one.classes, known)
                cases.append({"change": views.change, **row})
        except PictureError as error:  # too long and thin a picture
            return {"picture": item.name, "unreadable": f"{item.name}: {error}"}
    return {
        "picture": item.name,
        "cases": cases,
        "counts": counts,
        "problems": problems,
        "sites": sums,
    }


def _measurement(
    one: Subject,
    items: Sequence[Item],
    marks: Marks,
    rows: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, int] | None,
    plan: Plan,
    changes: Sequence[str] | None,
    speed: float | None,
) -> Measurement:
    good = [rows[item.name] for item in items if "unreadable" not in rows[item.name]]
    bad = [rows[item.name]["unreadable"] for item in items if "unreadable" in rows[item.name]]
    if not good:
        raise PictureError(f"none of {len(items)} pictures can be read; {bad[0]}")
    by_change: dict[Change, list[dict[str, Any]]] = {change: [] for change in CHANGES}
    not_finite = 0
    for row in good:
        label = None if labels is None else labels.get(row["picture"])
        for case in row["cases"]:
            own = {**case, "picture": row["picture"], "label": label}
            not_finite += own.pop("not_finite")
            by_change[case["change"]].append(own)
    problems = [*bad, *(text for row in good for text in row["problems"])]
    if changes is not None and "objects" in changes and not by_change["objects"]:
        reason = f": {problems[0]}" if problems else ""
        raise DataError(
            "no picture has a mask or a box that can be used (see --masks), so no object can be resized"
            f"{reason}"
        )
    sums = {
        name: sum(row["counts"].get(name, 0) for row in good)
        for name in ("without_objects", "bad_masks", "bad_boxes")
    }
    if not by_change["objects"]:  # nobody asked for objects
        sums["without_objects"] = 0
    counts = Counts(
        pictures=sum(bool(row["cases"]) for row in good),
        unreadable=len(bad),
        without_label=0 if labels is None else sum(row["picture"] not in labels for row in good),
        not_finite=not_finite,
        **sums,
    )
    sweeps = [sweep_of(change, own, plan) for change, own in by_change.items() if own]
    scenes = {item.name: item for item in items}
    return Measurement(
        model=one.name,
        task=one.task,
        classes=one.classes,
        class_names=one.class_names,
        settings={**plan.plain(), "preprocess": one.preprocess.plain()},
        counts=counts,
        problems=tuple(problems[:PROBLEMS]),
        sweeps=tuple(films_of(sweep, scenes, marks, one.preprocess, plan) for sweep in sweeps),
        sites=site_means(row["sites"] for row in good),
        pictures_per_second=speed,
    )
