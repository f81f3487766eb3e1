"""What a recipe is: a run, axes along which it varies, seeds, and the tables to make of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from lse_core.errors import LSEWarning, unknown_name
from lse_core.settings import Settings
from lse_data.fields import Count, Flag, several
from lse_train.reading import ConfigError, override, parse, read_yaml

__all__ = ["Recipe", "Report", "Start", "read_recipe"]

_FOLDER = re.compile(r"[\w .+%-]{1,100}")


def _folder(name: str) -> str:
    """Refuse a name that would lead out of the results' folder, or be no folder's everywhere."""
    if not _FOLDER.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name[:80]!r} names a folder: use letters, digits, spaces and _ . + - % alone")
    return name


Folder = Annotated[str, AfterValidator(_folder)]
Words = Annotated[tuple[str, ...], several]


class Start(Settings):
    """The common start of all cells that differ in the other axes only.

    Attributes:
        axes: axes whose settings the start has too; it is trained once for each of their options and seed.
        settings: over the run's, by dotted keys.
    """

    axes: Words = ("model",)
    settings: dict[str, Any] = Field(default_factory=dict)


class Report(Settings):
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
    values: Words = ("accuracy", "invariance_error")
    test: str | None = None
    average: Flag = False
    where: dict[str, str] = Field(default_factory=dict)
    title: str = ""


class _Option(Settings):
    """What is not a run's setting in an option of an axis; the rest is checked where runs are made."""

    model_config = ConfigDict(extra="allow")

    label: Any = None
    preset: str | None = None
    start: dict[str, Any] | None = None


def _option(given: Any) -> Any:
    """An option as it is written, once it is known to be one."""
    return {} if given is None else _Option.model_validate(given).model_dump(exclude_unset=True)


Option = Annotated[dict[str, Any], BeforeValidator(_option)]


class Recipe(Settings):
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
        jobs: runs at a time, as processes of their own where more than one.
    """

    table: Folder
    title: str
    run: dict[str, Any]
    axes: Annotated[dict[Folder, Annotated[dict[Folder, Option], Field(min_length=1)]], Field(min_length=1)]
    reports: Annotated[tuple[Report, ...], several]
    about: str = ""
    start: Start | None = None
    seeds: Count = 3
    measures: dict[str, dict[str, Any]] = Field(default_factory=dict)
    jobs: Count = 1

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, values: Any) -> Any:
        """recipe.json of earlier versions has the key `scales`, which is empty there."""
        return (
            {k: v for k, v in values.items() if k != "scales" or v} if isinstance(values, Mapping) else values
        )

    @model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        data = self.run.get("data")
        tests = data.get("tests") if isinstance(data, Mapping) else None
        tests = tests if isinstance(tests, Mapping) else {}
        for name in self.start.axes if self.start else ():
            _known("axis", name, self.axes)
        for report in self.reports:
            _known("axis", report.rows, self.axes)
            _known("columns", report.columns, [*self.axes, "tests", "measures"])
            for name, option in report.where.items():
                _known("axis", name, self.axes)
                _known(f"option of {name}", option, self.axes[name])
            if report.rows == report.columns:
                raise ValueError(f"a report has {report.rows} as rows and as columns")
            if report.test is not None:
                _known("test set", report.test, tests)
            elif report.columns != "tests" and len(tests) != 1:
                raise ValueError(f"the report by {report.columns} must say which test set it is of")
        return self

    def label(self, axis: str, option: str) -> str:
        """An option as people read it."""
        return str(self.axes[axis][option].get("label", option))


def _known(kind: str, name: str, known: Any) -> None:
    if name not in known:
        raise unknown_name(kind, name, list(known))


def read_recipe(
    path: str | Path, profile: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe from YAML.

    Args:
        path: the file; its key `base` may name another one beside it, over whose values its own are, and
            its key `profiles` holds values over all of them by dotted keys, for each profile ("cpu", "gpu").
        profile: one of the file's profiles; None takes the first.
        overrides: values by dotted keys, of the recipe or else of its run ("optim.lr").

    Raises:
        UnknownNameError: a key, a profile, an axis or a test set that does not exist, with the nearest name.
        ConfigError: no YAML, or values missing, of the wrong type or out of range.
    """
    raw = _over_base(Path(path))
    profiles = parse(_Profiles, {"profiles": raw.pop("profiles", None) or {}}, str(path)).profiles
    if profile is None and profiles:
        profile = next(iter(profiles))
    if profile is not None and profile not in profiles:
        raise unknown_name("profile", profile, profiles)
    given = {
        key if key.partition(".")[0] in Recipe.model_fields else f"run.{key}": value
        for key, value in (overrides or {}).items()
    }
    return parse(Recipe, override(override(raw, (profiles[profile] if profile else None) or {}), given))


class _Profiles(Settings):
    profiles: dict[Folder, dict[str, Any] | None]


def _over_base(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"{path} is its own base; name another file there")
    raw = read_yaml(path)
    if "scales" in raw:
        warnings.warn(
            f"{path}: the key `scales` of recipes is now called `profiles`", LSEWarning, stacklevel=2
        )
        raw = {"profiles" if key == "scales" else key: value for key, value in raw.items()}
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
