"""What `lse measure` found, and the schema of its results.json.

The classes below are the schema: a results.json is one `Results`, in which every name is an attribute here.
`results_schema()` gives the same as a JSON Schema, with the sentences of this file. Numbers are rounded to
nine significant digits. A number that does not exist is null: the accuracy without labels, for example, or
the probability in a view for which the model answered with NaN.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from lse_core.errors import DataError, LSEError
from lse_core.settings import Settings, validated

__all__ = [
    "CHANGES",
    "Case",
    "Change",
    "Counts",
    "Estimate",
    "Film",
    "Layer",
    "Layers",
    "Level",
    "Measurement",
    "Orbit",
    "Results",
    "Site",
    "Sweep",
    "read_results",
    "results_schema",
]

Change = Literal["objects", "warps", "rotation"]
CHANGES: tuple[Change, ...] = ("objects", "warps", "rotation")

Share = Annotated[float, Field(ge=0, le=1 + 1e-6)]
Numbers = tuple[float | None, ...]
Indices = tuple[int | None, ...]


class _Part(Settings):
    """A part of a results.json; docstrings of attributes become descriptions in the JSON Schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True,
        use_attribute_docstrings=True, hide_input_in_errors=True,
    )  # fmt: skip


class Estimate(_Part):
    """A mean over pictures, and the interval in which 95% of the means of resampled pictures lie."""

    value: float
    low: float
    """2.5% quantile of a bootstrap over pictures (all views of a picture stay together)."""
    high: float
    """97.5% quantile."""


class Level(_Part):
    """One step of a sweep: the same change made to every case."""

    level: float
    """The factor of an object, the bound on a warp's slopes, or an angle in degrees; see `Sweep.unit`."""
    cases: int
    """Cases whose answers were finite numbers, here and in the reference view."""
    probability: Share | None = None
    """Mean probability of the first answer, which is the class that scores highest in the reference view."""
    worst: Share | None = None
    """Least probability of the first answer over all cases."""
    changed: Share | None = None
    """Share of cases whose top-1 answer differs from the first answer (of pixels, for a segmentor)."""
    invariance_error: float | None = None
    """InvE (Eq. 24): mean squared L2 distance of the probabilities from those of the reference view, within
    [0, 2]."""
    confidence: Share | None = None
    """Mean of the highest probability."""
    accuracy: Share | None = None
    """Share of labelled cases whose top-1 answer is the label."""
    calibration_error: Share | None = None
    """Expected calibration error of the labelled cases, 15 bins, L1."""
    equivariance_error: float | None = None
    """EquE (Eq. 23) of a segmentor's probabilities, a sum over pixels and classes; for warps alone."""
    miou: Share | None = None
    """Mean over pictures of a segmentor's mIoU over the classes that occur in each picture: against the label
    maps where there are some, else against the reference view's answer, moved along with the change."""


class Case(_Part):
    """One picture under one warp, or one object of a picture, in all views. Lists have one entry a level."""

    picture: str
    """The picture's path, relative to the folder that was given."""
    number: int = 0
    """Number of the object within the picture, or of the warp that was drawn for it, from 0."""
    name: str | None = None
    """What the object's mask or box is called, if it has a name."""
    label: int | None = None
    """The picture's class, as an index of the model's outputs."""
    answer: int | None = None
    """First answer: the class with the highest score in the reference view. Null for a segmentor."""
    reference: Share | None = None
    """Probability of the first answer in the reference view."""
    invariance_error: float | None = None
    """Mean of `distance` over the levels other than the reference."""
    probability: Numbers = ()
    """Probability of the first answer at each level."""
    answers: Indices = ()
    """Top-1 class at each level. Empty for a segmentor."""
    confidence: Numbers = ()
    """Probability of the top-1 class at each level."""
    distance: Numbers = ()
    """Squared L2 distance of the probabilities from those of the reference view at each level."""
    changed: Numbers = ()
    """1 where the top-1 answer differs from the first answer, else 0; of a segmentor the share of pixels."""
    equivariance_error: Numbers = ()
    """Eq. 23 at each level; empty unless a segmentor is measured under warps."""
    miou: Numbers = ()
    """mIoU at each level; empty for a classifier."""


class Orbit(_Part):
    """A two-dimensional orbit for a NERO plot: factor in x against factor in y, averaged over the cases.

    Of change "objects" the object is resized; of "warps" the middle third of the picture, by a separable
    warp.
    The lists of lists have a row for each factor in y and a column for each factor in x.
    """

    factors: tuple[float, ...]
    """The factors of both axes, in increasing order; 1 is among them."""
    cases: int
    """Cases with finite answers everywhere."""
    probability: tuple[Numbers, ...]
    """Mean probability of the first answer."""
    changed: tuple[Numbers, ...]
    """Share of cases whose top-1 answer changed."""
    invariance_error: tuple[Numbers, ...]
    """Mean squared L2 distance of the probabilities from those of the reference view."""


class Film(_Part):
    """The views of one case as small pictures, for the report; not part of results.json."""

    case: int
    """Index into `Sweep.cases`."""
    frames: np.ndarray[Any, np.dtype[np.uint8]]
    """(levels, height, width, 3), RGB, what the model sees at each level, at most 160 pixels a side."""


class Sweep(_Part):
    """What one family of change did to the model's answers."""

    change: Change
    """Of "objects", each masked object is resized on its own; of "warps", the whole picture is warped by
    random monotone maps; of "rotation", the whole picture is turned about its centre."""
    unit: Literal["factor", "ratio", "degrees"]
    """What the levels are: the factor by which an object is resized; the bound r of a warp, whose slopes lie
    within [1/r, r], 1 being no change; degrees counter-clockwise."""
    reference: float
    """Level of the reference view, which need not be among the levels."""
    pictures: int
    """Pictures that have at least one case."""
    invariance_error: Estimate | None = None
    """InvE (Eq. 24) over all cases and all levels but the reference."""
    changed: Estimate | None = None
    """Share of views, but for the reference, whose top-1 answer changed (of pixels, for a segmentor)."""
    accuracy: Estimate | None = None
    """Accuracy over all levels; null without labels."""
    equivariance_error: Estimate | None = None
    """EquE (Eq. 23); segmentors under warps alone."""
    miou: Estimate | None = None
    """mIoU over all levels but the reference; segmentors alone."""
    levels: tuple[Level, ...] = ()
    """Means over all cases, by level, in increasing order."""
    orbit: Orbit | None = None
    worst: tuple[int, ...] = ()
    """Indices into `cases` of the ten with the greatest error, the worst first (of a segmentor by mIoU)."""
    cases: tuple[Case, ...] = ()
    """Every picture, and every object or warp of it, on its own."""
    films: Annotated[tuple[Film, ...], Field(exclude=True)] = ()
    """The worst cases as pictures, in the order of `worst`; left out of results.json."""


class Site(_Part):
    """What a canonicalizer of an adapted model did, as means over all views of all changes."""

    name: str
    displacement_pixels: float
    """How far its warps move points, in pixels of the model's input; near 0 the canonicalizer is not used."""
    residual: float | None = None
    """Residual of its solves; null for canonicalizers that do not iterate."""


class Layer(_Part):
    """How much one layer contributes to the change of the model's answer (`--layers`)."""

    name: str
    """Path of a module in the model; "" is the model itself. It stands for the module's own operations, apart
    from those of modules inside it."""
    stage: str
    """The last site before it, as `lse adapt --list` prints them; for the bar chart."""
    lie_derivative: float
    """Size of the Lie derivative of everything up to this layer, relative to that of the layer's output."""
    own: float
    """The same of the layer alone, apart from what enters it."""
    share: Share
    """The layer's part in the change of the model's probabilities; the parts of all layers sum to 1."""


class Layers(_Part):
    """Where the model breaks: the Lie derivative of its layers under random fields of local scaling."""

    layers: tuple[Layer, ...]
    sites: tuple[str, ...] = ()
    """Stages to try first as sites of a canonicalizer, the best first."""
    command: str | None = None
    """The command that adapts the model at these sites."""


class Counts(_Part):
    """What was measured and what was left out."""

    pictures: int
    """Pictures that were measured under at least one change."""
    unreadable: int = 0
    """Pictures that cannot be read."""
    without_objects: int = 0
    """Pictures that have no mask and no box, and so no case of the change "objects"."""
    bad_masks: int = 0
    """Masks that are empty, cannot be read, or have another size than their picture."""
    bad_boxes: int = 0
    """Boxes that lie outside of their picture or have no area."""
    without_label: int = 0
    """Pictures without a label, where labels were given."""
    not_finite: int = 0
    """Views for which the model answered with NaN or infinity; they count nowhere else."""


class Measurement(_Part):
    """What `lse_core.measure` found of one model."""

    model: str
    """What the model is called in the report."""
    task: Literal["classification", "segmentation"]
    """Whether it answers with one class for a picture, or with one for each pixel."""
    classes: int
    """Number of classes that the model tells apart."""
    class_names: tuple[str, ...] | None = None
    """In the order of the model's outputs; null where the classes have no names."""
    settings: Annotated[dict[str, Any], Field(default_factory=dict)]
    """The seed, the sweeps, and how pictures are prepared (`lse_core.Preprocess`)."""
    counts: Counts
    problems: tuple[str, ...] = ()
    """The first ten things that were left out, one sentence each."""
    sweeps: tuple[Sweep, ...] = ()
    """One for each change that was measured."""
    sites: tuple[Site, ...] = ()
    """Canonicalizers of an adapted model, in the order in which they run."""
    layers: Layers | None = None
    pictures_per_second: Annotated[float | None, Field(exclude=True)] = None
    """Speed of this run; left out of results.json, which is the same for the same seed."""

    def sweep(self, change: str) -> Sweep | None:
        """The sweep of the change, or None."""
        return next((sweep for sweep in self.sweeps if sweep.change == change), None)

    def class_name(self, index: int | None) -> str:
        """Name of a class, or its number where it has no name."""
        if index is None:
            return "none"
        names = self.class_names or ()
        return names[index] if index < len(names) else str(index)

    @property
    def error(self) -> float | None:
        """The greatest error over the sweeps, which `--fail-above` looks at: InvE; EquE of a segmentor."""
        kind = "invariance_error" if self.task == "classification" else "equivariance_error"
        found: list[Estimate | None] = [getattr(sweep, kind) for sweep in self.sweeps]
        return max((estimate.value for estimate in found if estimate is not None), default=None)

    @property
    def warped_pixels(self) -> float | None:
        """How far the canonicalizers of an adapted model move points, the most over its sites."""
        return max((site.displacement_pixels for site in self.sites), default=None)


class Results(_Part):
    """The whole of a results.json."""

    format: Literal["lse-measure-1"] = "lse-measure-1"
    lse_core: str
    """Version of lse-core that wrote the file."""
    measurements: tuple[Measurement, ...]
    """One for each model, in the order in which they were given."""

    def to_json(self) -> str:
        """The text of results.json; the same for the same results, byte for byte."""
        return json.dumps(_rounded(self.plain()), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_results(path: Path) -> Results:
    """Read a results.json.

    Raises:
        DataError: it cannot be read, or is no results.json of this version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as results of lse measure: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is no results.json of lse measure")
    try:
        return validated(Results, values, str(path))
    except LSEError as error:
        raise DataError(f"{path} is no results.json of this version of lse measure: {error}") from error


def results_schema() -> dict[str, Any]:
    """JSON Schema of results.json."""
    return Results.model_json_schema(mode="serialization")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
