"""One photograph through all stages: a function from a file to the files of its set, without side effects.

Runs of many pictures call it in processes of their own, in any order.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lse_core.errors import LSEError
from lse_core.pictures import overlay, read_picture
from lse_data.compositing import hole_around
from lse_data.masks import Mark
from lse_data.objects.settings import palette
from lse_data.scaling.compositor import box_of, compose, cut_edges, front_to_back, place, soft_edge
from lse_data.scaling.config import ScalingConfig
from lse_data.scaling.quality import BOUND, agreement, area, in_one_piece, made_solid, smoothness
from lse_data.scaling.stages import Box, Mask, Picture, Shot, Stages

__all__ = ["IMAGES", "MASKS", "Outcome", "Source", "make_versions"]

IMAGES, MASKS = "images", "masks"
COLOURS = np.array(palette(256), dtype=np.uint8)
MOST = 254  # objects of a picture, as many as a mask can number
CELL = 176  # pixels a side of the pictures on the preview sheet
R = TypeVar("R")


@dataclass(frozen=True)
class Source:
    """A photograph that is to be read.

    Attributes:
        file: where it is.
        name: its path relative to the folder that was given, or as it was given.
        label: the folder that it lies in; "" where the new pictures' folder is named after the object.
    """

    file: Path
    name: str
    label: str = ""


@dataclass
class Outcome:
    """What became of one photograph.

    Attributes:
        record: what the manifest says of it.
        files: bytes by path relative to the new folder: none if it was rejected.
        cells: small pictures for the preview sheet, each with a caption.
    """

    record: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    cells: list[tuple[str, Picture]] = field(default_factory=list)


class _Rejected(Exception):
    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass
class _Object:
    mask: Mask
    name: str | None
    box: Box | None
    alpha: NDArray[np.float32]


def make_versions(source: Source, config: ScalingConfig, stages: Stages) -> Outcome:
    """Read a photograph and make a version of it for each factor.

    All versions are made, or the photograph is rejected and its record says why. Equal inputs give equal
    bytes.
    """
    record: dict[str, Any] = {"source": source.name}
    outcome = Outcome(record)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of other order differ in their last bits
    try:
        _make(source, config, stages, outcome)
        record["status"] = "kept"
    except _Rejected as error:
        outcome.files.clear()
        record.update(status="rejected", kind=error.kind, reason=str(error))
    finally:
        torch.set_num_threads(threads)
    return outcome


def _make(source: Source, config: ScalingConfig, stages: Stages, outcome: Outcome) -> None:
    record = outcome.record
    shot = _shot(source, config, record)
    outcome.cells.append(("picture", _cell(shot.picture)))
    objects = _objects(shot, config, stages, record)
    masks = [thing.mask for thing in objects]
    outcome.cells[0] = (outcome.cells[0][0], _cell(_outlined(shot.picture, masks)))
    for number, mask in enumerate(masks):
        _check_cut(mask, number, config)
    background, hole = _background(shot.picture, masks, config, stages)
    outcome.cells.append(("background", _cell(background)))
    order = front_to_back(masks, config.order)
    alphas = [thing.alpha for thing in objects]
    here = [place(mask, 1.0) for mask in masks]
    again, seen_before = compose(shot.picture, background, alphas, [1.0] * len(masks), here, order)
    seam = hole & ~(np.max(alphas, axis=0) == 1.0)
    worst, mean = agreement(shot.picture, again, seam)
    parts = {
        "area": min(area(thing.mask, thing.box) for thing in objects),
        "smoothness": min(smoothness(mask) for mask in masks),
        "in_one_piece": min(in_one_piece(mask) for mask in masks),
        "agreement": float(worst <= BOUND),
    }
    record["quality"] = {**{name: round(value, 4) for name, value in parts.items()}, "outside_seam": worst,
                         "in_seam": round(mean, 3)}  # fmt: skip
    quality = min(parts.values())
    _asked(quality, parts, config)
    main = max(range(len(masks)), key=lambda i: int(masks[i].sum()))
    folder = _plain(source.label or objects[main].name or "object")
    stem = f"{folder}/{Path(source.name).stem}_scale_"
    results = []
    for factor in sorted(config.factors):
        factors = _factors(factor, len(masks), main, source.name, config)
        places = [
            place(mask, each, foot=config.anchor == "foot", fit=config.fit)
            for mask, each in zip(masks, factors, strict=True)
        ]
        for number, placed in enumerate(places):
            if placed.beyond and not config.crop:
                _does_not_fit(number, factors[number], placed.beyond, config.fit)
        made, seen = compose(shot.picture, background, alphas, factors, places, order)
        wanted = float(seen_before[main].sum()) * factors[main] ** 2
        shown = min(1.0, float(seen[main].sum()) / max(1.0, wanted))
        cut = bool(cut_edges(masks[main]))
        told = {**parts, "visible": 1.0 if cut else shown}  # what is cut off shows less when it grows
        _asked(min(told.values()), told, config)
        file, mask_file = f"{IMAGES}/{stem}{factor:g}.{config.format}", f"{MASKS}/{stem}{factor:g}.png"
        outcome.files[file] = _encoded(made, config)
        outcome.files[mask_file] = _numbered(seen)
        results.append({
            "factor": factor, "file": file, "mask": mask_file, "factors": factors,
            "boxes": [[round(side, 2) for side in placed.box] for placed in places],
            "moved": [list(placed.moved) for placed in places], "areas": seen.sum((1, 2)).tolist(),
            "quality": round(min(told.values()), 4),
        })  # fmt: skip
        if factor in (min(config.factors), 1.0, max(config.factors)):
            outcome.cells.append((f"x {factor:g}", _cell(made)))
    record.update(folder=folder, results=results)
    outcome.cells[0] = (f"quality {min(r['quality'] for r in results):.2f}", outcome.cells[0][1])


def _shot(source: Source, config: ScalingConfig, record: dict[str, Any]) -> Shot:
    try:
        with Image.open(source.file) as file:
            record["mode"] = file.mode
        picture = read_picture(source.file, 3)
    except (LSEError, OSError) as error:
        raise _Rejected("unreadable", str(error)) from error
    share = min(1.0, config.longest / max(picture.size))
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    used = picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)
    record["size"], record["used_size"] = list(picture.size), list(size)
    return Shot(np.asarray(used), source.file, source.name, picture.size, source.label)


def _objects(shot: Shot, config: ScalingConfig, stages: Stages, record: dict[str, Any]) -> list[_Object]:
    height, width = shot.picture.shape[:2]
    found = _stage("no_marks", lambda: list(stages.detector(shot)))
    if len(found) > MOST:
        raise _Rejected("too_many", f"it has {len(found)} objects, and masks number at most {MOST}")
    if not found:
        raise _Rejected("no_object", f"the detector {config.detector!r} finds no object in it")
    marks = _stage("bad_mark", lambda: [mark.fitted(shot.size, (width, height)) for mark in found])
    boxes = [mark.box for mark in marks if mark.box is not None]
    drawn = iter(_stage("bad_mark", lambda: list(stages.segmenter(shot.picture, boxes))) if boxes else ())
    objects = []
    record["objects"] = []
    for number, mark in enumerate(marks):
        mask = _mask(mark, next(drawn) if mark.box is not None else mark.mask, number, shot.picture)
        mask = made_solid(mask) if config.solid else mask
        objects.append(_Object(mask, mark.name, mark.box, soft_edge(mask, config.soft)))
        given = None if mark.box is None else [round(float(side), 2) for side in mark.box]
        record["objects"].append({"name": mark.name, "given_box": given, "box": list(box_of(mask)),
                                  "area": int(mask.sum()), "cut_off_at": cut_edges(mask)})  # fmt: skip
    return objects


def _mask(mark: Mark, mask: Any, number: int, picture: Picture) -> Mask:
    drawn = np.asarray(mask, dtype=bool)
    if drawn.shape != picture.shape[:2]:
        raise _Rejected("bad_mark", f"the mask of object {number} is {drawn.shape}, and no (height, width)")
    if not drawn.any():
        raise _Rejected("empty_mask", f"the mask of object {number} is empty")
    if drawn.all():
        raise _Rejected("full_mask", f"the mask of object {number} is the whole picture, without background")
    return drawn


def _check_cut(mask: Mask, number: int, config: ScalingConfig) -> None:
    cut = cut_edges(mask)
    for pair in (("left", "right"), ("top", "bottom")):
        if set(pair) <= set(cut) and min(config.factors) < 1:
            raise _Rejected(
                "cut_off",
                f"object {number} is cut off at the picture's {pair[0]} and {pair[1]}, and a smaller one "
                "would show where it ends: leave out factors below 1",
            )


def _background(
    picture: Picture, masks: Sequence[Mask], config: ScalingConfig, stages: Stages
) -> tuple[Picture, Mask]:
    whole = np.any(masks, axis=0)
    hole = _stage("full_mask", lambda: hole_around(whole, config.margin))
    filled = np.asarray(_stage("failed", lambda: stages.inpainter(picture, hole)))
    if filled.shape != picture.shape or filled.dtype != np.uint8:
        raise _Rejected(
            "failed",
            f"the inpainter {config.inpainter!r} gives {filled.shape} of {filled.dtype}, "
            f"and must give {picture.shape} of uint8",
        )
    return np.where(hole[..., None], filled, picture), hole


def _factors(factor: float, count: int, main: int, name: str, config: ScalingConfig) -> list[float]:
    factors = [factor if config.others == "same" else 1.0] * count
    if config.others == "random" and factor != 1.0:
        seeds = [config.seed, zlib.crc32(name.encode("utf-8", "surrogateescape")), round(factor * 1e6)]
        factors = np.random.default_rng(seeds).choice(sorted(config.factors), count).tolist()
    factors[main] = factor
    return factors


def _does_not_fit(number: int, factor: float, beyond: dict[str, float], fit: bool) -> None:
    edge, pixels = max(beyond.items(), key=lambda item: item[1])
    hint = "there is no room for it" if fit else "--fit moves it"
    raise _Rejected(
        "does_not_fit",
        f"at factor {factor:g} object {number} reaches {pixels:.0f} pixels over the {edge} edge: {hint}, "
        "and --crop lets it be cut off there",
    )


def _asked(quality: float, parts: dict[str, float], config: ScalingConfig) -> None:
    if quality < config.min_quality:
        worst = min(parts, key=lambda name: parts[name])
        raise _Rejected(
            "low_quality",
            f"its quality is {quality:.2f} ({worst}), and at least {config.min_quality:g} was asked for",
        )


def _stage(kind: str, work: Callable[[], R]) -> R:
    try:
        return work()
    except LSEError as error:
        raise _Rejected(kind, str(error)) from error
    except Exception as error:  # whatever a stranger's plugin raises: one picture must not end a run
        text = " ".join(str(error).split())[:200]
        raise _Rejected("failed", f"a stage raised {type(error).__name__}: {text}") from error


def _plain(name: str) -> str:
    """A name that is a folder's and leads nowhere else, whatever a file of boxes says."""
    return re.sub(r"[^\w\- ]", "_", name).strip()[:80] or "object"


def _encoded(picture: Picture, config: ScalingConfig) -> bytes:
    buffer = io.BytesIO()
    settings: dict[str, Any] = (
        {"quality": config.jpeg_quality, "subsampling": 0} if config.format == "JPEG" else {}
    )
    Image.fromarray(picture).save(buffer, format=config.format, **settings)
    return buffer.getvalue()


def _numbered(seen: NDArray[np.bool_]) -> bytes:
    """A PNG with a palette whose indices are the objects, from 1 on; 0 is none."""
    numbers = np.zeros(seen.shape[1:], dtype=np.uint8)
    for number, mask in enumerate(seen, start=1):
        numbers[mask] = number
    picture, buffer = Image.fromarray(numbers), io.BytesIO()
    picture.putpalette(COLOURS.flatten().tolist())
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _outlined(picture: Picture, masks: Sequence[Mask]) -> Picture:
    numbers = np.zeros(picture.shape[:2], dtype=np.uint8)
    for number, mask in enumerate(masks, start=1):
        numbers[mask] = number
    return overlay(picture, numbers, COLOURS, strength=0.4)


def _cell(picture: Picture) -> Picture:
    """The picture, whole, in the middle of a grey square."""
    height, width = picture.shape[:2]
    share = CELL / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    cell = np.full((CELL, CELL, 3), 96, dtype=np.uint8)
    top, left = (CELL - size[1]) // 2, (CELL - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell
