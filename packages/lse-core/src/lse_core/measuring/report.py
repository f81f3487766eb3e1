"""report.html: what `lse measure` found, as one page that needs no other file."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lse_core import __version__
from lse_core.atomic import replacing
from lse_core.html import data_uri, rendered
from lse_core.measuring.figures import cases_figure, levels_figure, nero_figure, plain, stages_figure
from lse_core.measuring.layers import stage_shares
from lse_core.measuring.measurement import Case, Estimate, Film, Layers, Measurement, Sweep
from lse_core.measuring.tables import TITLES, left_out

__all__ = ["write_report"]

BY_LEVEL = (
    ("changed", "Changed answers, %", True),
    ("accuracy", "Accuracy, %", True),
    ("calibration_error", "Expected calibration error, %", True),
    ("invariance_error", "InvE", False),
    ("equivariance_error", "EquE", False),
    ("miou", "mIoU, %", True),
)
"""Numbers of a level that have a figure: attribute, title, whether in percent."""

ESTIMATES = (
    ("invariance_error", "InvE", "{:.3f}", 1),
    ("equivariance_error", "EquE", "{:.3g}", 1),
    ("changed", "changed, %", "{:.1f}", 100),
    ("accuracy", "accuracy, %", "{:.1f}", 100),
    ("miou", "mIoU, %", "{:.1f}", 100),
)
"""Numbers of a sweep that are columns of the table: attribute, heading, how written, factor."""

DID = {
    "objects": "objects were resized on their own",
    "warps": "the whole picture was warped",
    "rotation": "the picture was turned",
}


def write_report(measurements: Sequence[Measurement], folder: Path, *, command: Sequence[str] = ()) -> Path:
    """Write `report.html` into a folder: tables, figures and pictures, all in the one file.

    The page loads nothing, runs no script, and follows the browser's light or dark colours. Names of files,
    classes and models are text in it, whatever they contain.

    Args:
        measurements: of one or several models; those of other models stand beside each other.
        folder: is made where it does not exist; an earlier report in it is replaced.
        command: what was typed, for the last line.

    Returns:
        Path of the page.

    Raises:
        OutputError: it cannot be written.
    """
    models = [_model(one) for one in measurements]
    page = rendered(
        "lse_core.measuring",
        "report.html.j2",
        title=" and ".join(one.model for one in measurements) if len(measurements) < 3 else "models",
        sentences=[sentence for one in measurements for sentence in _sentences(one)],
        changes=_changes(measurements),
        models=models,
        several=len(measurements) > 1,
        sites=[(one.model, site) for one in measurements for site in one.sites],
        layers=[_layers(one.model, one.layers) for one in measurements if one.layers is not None],
        command=shlex.join(command),
        version=__version__,
    )
    target = folder / "report.html"
    with replacing(target, overwrite=True) as partial:
        # a file name may hold bytes that are no text
        partial.write_bytes(page.encode("utf-8", errors="replace"))
    return target


def _sentences(one: Measurement) -> list[str]:
    """What each sweep says, in a sentence."""
    found = []
    for sweep in one.sweeps:
        if sweep.changed is None or not sweep.levels:
            continue
        span = f"{sweep.unit} from {sweep.levels[0].level:.3g} to {sweep.levels[-1].level:.3g}"
        what = "pixels" if one.task == "segmentation" else "answers"
        cases = f"{len(sweep.cases)} {'objects' if sweep.change == 'objects' else 'views of pictures'}"
        found.append(
            f"{one.model} changed {100 * sweep.changed.value:.1f}% of its {what} when {DID[sweep.change]}, "
            f"{span}; measured on {cases} in {sweep.pictures} pictures."
        )
    return found


def _changes(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """For each change the table of all models and the figures that have a line for each model."""
    found = []
    for change in dict.fromkeys(sweep.change for one in measurements for sweep in one.sweeps):
        pairs = [(one, sweep) for one in measurements if (sweep := one.sweep(change)) is not None]
        columns = [entry for entry in ESTIMATES if any(getattr(sweep, entry[0]) for _, sweep in pairs)]
        rows = [
            [one.model, *(_estimate(getattr(sweep, name), form, k) for name, _, form, k in columns)]
            for one, sweep in pairs
        ]
        named = [(one.model, sweep) for one, sweep in pairs]
        figures = [(title, levels_figure(named, name, share=share)) for name, title, share in BY_LEVEL]
        found.append(
            {
                "title": TITLES[change],
                "heads": [head for _, head, _, _ in columns],
                "rows": rows,
                "figures": [(title, uri) for title, uri in figures if uri is not None],
            }
        )
    return found


def _estimate(estimate: Estimate | None, form: str, factor: float) -> tuple[str, str]:
    """A number and its interval, as texts."""
    if estimate is None:
        return "", ""
    value, low, high = (form.format(factor * v) for v in (estimate.value, estimate.low, estimate.high))
    return value, f"{low} to {high}"


def _model(one: Measurement) -> dict[str, Any]:
    """What is shown of one model alone."""
    sweeps = [
        {
            "title": TITLES[sweep.change],
            "unit": sweep.unit,
            "cases": cases_figure(sweep) if sweep.cases else None,
            "nero": None if sweep.orbit is None else nero_figure(sweep.orbit),
            "orbit_of": "the object" if sweep.change == "objects" else "the middle third of the picture",
            "films": [_film(one, sweep, film) for film in sweep.films],
        }
        for sweep in one.sweeps
    ]
    return {
        "name": one.model,
        "task": one.task,
        "sweeps": sweeps,
        "left_out": left_out(one.counts),
        "problems": one.problems,
        "pictures": one.counts.pictures,
        "speed": one.pictures_per_second,
    }


def _film(one: Measurement, sweep: Sweep, film: Film) -> dict[str, Any]:
    """One of the worst cases with its frames."""
    case = sweep.cases[film.case]
    frames = [
        {
            "picture": _picture(frame),
            "level": f"{level.level:.3g}",
            **_answer(one, case, number),
        }
        for number, (frame, level) in enumerate(zip(film.frames, sweep.levels, strict=True))
    ]
    return {
        "picture": case.picture,
        "object": case.name,
        "number": case.number + 1,
        "answer": None if case.answer is None else one.class_name(case.answer),
        "label": None if case.label is None else one.class_name(case.label),
        "reference": "" if case.reference is None else f"{case.reference:.2f}",
        "frames": frames,
    }


def _answer(one: Measurement, case: Case, number: int) -> dict[str, Any]:
    """What the model said to one frame."""
    probability = case.probability[number] if number < len(case.probability) else None
    said = case.answers[number] if number < len(case.answers) else None
    changed = case.changed[number] if number < len(case.changed) else None
    miou = case.miou[number] if number < len(case.miou) else None
    return {
        "probability": "" if probability is None else f"{probability:.2f}",
        "instead": one.class_name(said) if said is not None and said != case.answer else None,
        "changed": bool(changed) if one.task == "classification" else None,
        "miou": "" if miou is None else f"{miou:.2f}",
    }


def _picture(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="WEBP", quality=80)
    return data_uri(buffer.getvalue(), "image/webp")


def _layers(name: str, layers: Layers) -> dict[str, Any]:
    """Bars by stage, the ten layers with the greatest share, and the advice."""
    first = sorted(layers.layers, key=lambda layer: -layer.share)[:10]
    return {
        "name": name,
        "figure": stages_figure(stage_shares(layers), layers.sites),
        "first": first,
        "sites": layers.sites,
        "command": layers.command,
        "label": plain,
    }
