"""What a recipe is: a run, axes along which it varies, seeds, and the tables to make of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lse_core.errors import unknown_name
from lse_train.config import ConfigError
from lse_train.reading import override, parse, plain, read_yaml

__all__ = ["Recipe", "Report", "Start", "read_recipe"]

_FOLDER = re.compile(r"[\w .+%-]{1,100}")


@dataclass(frozen=True)
class Start:
    """The common start of all cells that differ in the other axes only.

    Attributes:
        axes: axes whose settings the start has too; it is trained once for each of their options and seed.
        settings: over the run's, by dotted keys.
    """

    axes: tuple[str, ...] = ("model",)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """One table: mean and deviation over seeds.

    Attributes:
        rows: an axis.
        columns: another axis, "tests" for the test sets or "measures" for the recipe's measures.
        values: measured numbers, see `lse_train.evaluate`; "displacement_pixels" and "residual"
            are means over sites.
        test: test set the numbers are of, where the columns are no test sets.
        average: whether a last column has the mean over the others.
        where: options of the remaining axes; those not named are averaged over.
        title: heading.
    """

    rows: str
    columns: str
    values: tuple[str, ...] = ("accuracy", "invariance_error")
    test: str | None = None
    average: bool = False
    where: dict[str, str] = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True)
class Recipe:
    """A table's experiments.

    Attributes:
        table: name of the table, and of the folder its results go to.
        title: heading of its page.
        run: settings of every run, see `lse_train.RunConfig`; the text "$seed" stands for the seed.
        axes: options by axis; those of later axes are over those of earlier ones. An option is settings
            by dotted keys over the run's, and may have a `preset` (see `lse_train.recipes.presets`), which
            they are over, a `label` for people, and on an axis that the start has, settings of the start
            alone (`start`).
        reports: the tables.
        about: what is compared, for the page.
        start: the common start; None lets every cell begin by itself.
        seeds: how many, from the run's `seed`, which is 0 unless given.
        measures: further measurements of every cell's test sets, by name: attributes of its
            canonicalizers ("steps", "solver") for the time of measuring.
        scales: values over this recipe's own, by dotted keys, for each size ("cpu", "gpu").
        jobs: runs at a time, as processes of their own where more than one.
    """

    table: str
    title: str
    run: dict[str, Any]
    axes: dict[str, dict[str, Any]]
    reports: tuple[Report, ...]
    about: str = ""
    start: Start | None = None
    seeds: int = 3
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.jobs < 1:
            raise ConfigError(f"seeds and jobs must be at least 1; got {self.seeds}, {self.jobs}")
        if not self.axes or not all(self.axes.values()):
            raise ConfigError("axes must name at least one axis, each with at least one option")
        _check_folder("table", self.table)
        for axis, options in self.axes.items():
            _check_folder("axis", axis)
            for option, settings in options.items():
                _check_folder(f"option of {axis}", option)
                if not isinstance(settings, Mapping):
                    raise ConfigError(f"axes.{axis}.{option} must hold settings; got {settings!r}")
                if not isinstance(settings.get("preset", ""), str | None):
                    raise ConfigError(f"axes.{axis}.{option}.preset must be a name")
                if not isinstance(settings.get("start", {}), Mapping | None):
                    raise ConfigError(f"axes.{axis}.{option}.start must hold settings")
        for name in self.start.axes if self.start else ():
            _known("axis", name, self.axes)
        for report in self.reports:
            _known("axis", report.rows, self.axes)
            _known("columns", report.columns, [*self.axes, "tests", "measures"])
            for name, option in report.where.items():
                _known("axis", name, self.axes)
                _known(f"option of {name}", option, self.axes[name])
            if report.rows == report.columns:
                raise ConfigError(f"a report has {report.rows} as rows and as columns")
            data = self.run.get("data")
            tests = data.get("tests") if isinstance(data, Mapping) else None
            tests = tests if isinstance(tests, Mapping) else {}
            if report.columns != "tests" and report.test is None and len(tests) != 1:
                raise ConfigError(f"the report by {report.columns} must say which test set it is of")
            if report.test is not None:
                _known("test set", report.test, tests)

    def plain(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        found: dict[str, Any] = plain(self)
        return found

    def label(self, axis: str, option: str) -> str:
        """An option as people read it."""
        return str((self.axes[axis][option] or {}).get("label", option))


def _check_folder(kind: str, name: str) -> None:
    """Refuse a name that would lead out of the results' folder, or be no folder's everywhere."""
    if not _FOLDER.fullmatch(name) or name in (".", ".."):
        raise ConfigError(
            f"the {kind} {name[:80]!r} names a folder: use letters, digits, spaces and _ . + - % alone"
        )


def _known(kind: str, name: str, known: Any) -> None:
    if name not in known:
        raise unknown_name(kind, name, list(known))


def read_recipe(
    path: str | Path, scale: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe from YAML.

    Args:
        path: the file; its key `base` may name another one beside it, over whose values its own are.
        scale: one of its sizes; None takes the first.
        overrides: values by dotted keys, of the recipe or else of its run ("optim.lr").

    Raises:
        UnknownNameError: a key, a size, an axis or a test set that does not exist, with the nearest name.
        ConfigError: no YAML, or values missing, of the wrong type or out of range.
    """
    raw = _over_base(Path(path))
    sizes = raw.get("scales") or {}
    if not isinstance(sizes, dict) or not all(isinstance(size, dict | None) for size in sizes.values()):
        raise ConfigError(f"{path}: scales must hold settings by the name of a size; got {str(sizes)[:80]}")
    if scale is None and sizes:
        scale = next(iter(sizes))
    if scale is not None and scale not in sizes:
        raise unknown_name("scale", scale, sizes)
    for name in sizes:
        _check_folder("scale", name)
    own = {f.name for f in fields(Recipe)}
    given = {
        key if key.partition(".")[0] in own else f"run.{key}": value
        for key, value in (overrides or {}).items()
    }
    merged = override(override(raw, sizes[scale] or {} if scale else {}), given)
    merged["scales"] = {}
    axes = merged.get("axes")
    for axis in axes.values() if isinstance(axes, dict) else ():
        for option in axis if isinstance(axis, dict) else ():
            axis[option] = axis[option] or {}
    return parse(Recipe, merged)


def _over_base(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"{path} is its own base; name another file there")
    raw = read_yaml(path)
    base = raw.pop("base", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must name a file; got {base!r}")
    return _merged(_over_base(path.parent / base, (*above, path.resolve())), raw)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `base`, mapping by mapping; everything else, and what has a dotted key, is replaced."""
    result = dict(base)
    for key, value in own.items():
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and "." not in key:
            result[key] = _merged(before, value)
        else:
            result[key] = value
    return result
