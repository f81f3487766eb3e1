"""From a recipe to the runs it stands for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lse_core.errors import LSEError, unknown_name
from lse_train import ConfigError, RunConfig
from lse_train.reading import override
from lse_train.recipes.presets import PRESETS
from lse_train.recipes.schema import Recipe

__all__ = ["MEASURES", "RESULT", "Cell", "Plan", "Work", "make_plan"]

RESULT, MEASURES = "result.json", "measures.json"
"""In the folder of a run: what it came to, and the recipe's further measurements."""

OF_OPTIONS = ("label", "preset", "start")


@dataclass(frozen=True)
class Work:
    """A run to be done, or done.

    Attributes:
        name: its folder within the results, "cells/..." or "starts/...".
        folder: where it writes.
        config: the run.
        measures: further measurements, see `lse_train.recipes.schema.Recipe`.
    """

    name: str
    folder: Path
    config: RunConfig
    measures: Mapping[str, Mapping[str, Any]]

    @property
    def done(self) -> bool:
        """Whether it has its result and its further measurements."""
        return all((self.folder / name).exists() for name in (RESULT, *([MEASURES] if self.measures else [])))

    def plain(self) -> dict[str, Any]:
        """The work as JSON values; `Work.of` takes them back."""
        values = {"name": self.name, "folder": str(self.folder), "config": self.config.plain()}
        return {**values, "measures": self.measures}

    @classmethod
    def of(cls, name: str, folder: str, config: Mapping[str, Any], measures: Mapping[str, Any]) -> Work:
        """The work that `plain` described; raises LSEError for settings that do not fit."""
        return cls(name, Path(folder), RunConfig.parse(config), measures)


@dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
        place: the option of every axis.
        seed: of everything that is drawn.
        name: its folder under "cells"; cells with the same settings share one.
        config: the run.
    """

    place: Mapping[str, str]
    seed: int
    name: str
    config: RunConfig


@dataclass(frozen=True)
class Plan:
    """All runs of a recipe: the common starts, by folder name under "starts", then the cells, by seed."""

    starts: Mapping[str, RunConfig]
    cells: tuple[Cell, ...]

    def waves(self, out: Path, measures: Mapping[str, Mapping[str, Any]]) -> list[list[Work]]:
        """Runs that may go on at the same time: for each seed its starts, then its cells, which need them.

        Args:
            out: folder of the results.
            measures: further measurements of the cells.
        """
        starts = [
            Work(f"starts/{name}", out / "starts" / name, config, {}) for name, config in self.starts.items()
        ]
        named = {cell.name: cell.config for cell in self.cells}  # cells of the same settings are one run
        cells = [
            Work(f"cells/{name}", out / "cells" / name, config, measures) for name, config in named.items()
        ]
        waves = [
            [work for work in works if work.config.seed == seed]
            for seed in dict.fromkeys(work.config.seed for work in (*starts, *cells))
            for works in (starts, cells)
        ]
        return [works for works in waves if works]


def make_plan(recipe: Recipe, out: Path, *, trust: bool = False) -> Plan:
    """The runs of `recipe` in the folder `out`, checked before any begins.

    Seeds are as many as the recipe says, one after the other from its run's `seed`, which is 0 unless given.

    Args:
        recipe: what to run.
        out: where.
        trust: call a function that the recipe names as "module:function" to learn the model's stages.

    Raises:
        UnknownNameError: a setting or preset that does not exist, with the nearest name.
        LSEError: settings that do not fit, or a site that the model does not have.
    """
    starts: dict[str, RunConfig] = {}
    cells, names = [], dict[str, str]()
    first = recipe.run.get("seed", 0)
    if not isinstance(first, int) or isinstance(first, bool):
        raise ConfigError(f"run.seed must be a whole number, the first of the seeds; got {first!r}")
    # seeds outermost: a table that is not finished has whole rows of fewer seeds
    for seed in range(first, first + recipe.seeds):
        for options in itertools.product(*recipe.axes.values()):
            place = dict(zip(recipe.axes, options, strict=True))
            settings = _settings(recipe, place, seed)
            if recipe.start is not None:
                shared = {axis: place[axis] for axis in recipe.start.axes}
                begun = override(_settings(recipe, shared, seed), _seeded(recipe.start.settings, seed))
                for axis, option in shared.items():
                    begun = override(begun, _seeded(recipe.axes[axis][option].get("start") or {}, seed))
                data = begun.get("data", {})
                named = {"name": data} if isinstance(data, str) else data
                if isinstance(named, Mapping):  # else it is refused below
                    begun["data"] = {**named, "tests": {}, "val": None}
                name = "/".join([*shared.values(), f"seed{seed}"])
                starts.setdefault(name, RunConfig.parse(begun))
                settings = override(settings, {"model.initial": str(out / "starts" / name)})
            config = RunConfig.parse(_with_sites(settings, trust))
            # options that make no difference here share a run: Aug continued has no segments
            same = json.dumps(config.plain(), sort_keys=True)
            name = names.setdefault(same, "/".join([*options, f"seed{seed}"]))
            cells.append(Cell(place, seed, name, config))
    return Plan(starts, tuple(cells))


def _settings(recipe: Recipe, place: Mapping[str, str], seed: int) -> dict[str, Any]:
    settings = override(_seeded(recipe.run, seed), {"seed": seed})
    for axis, name in place.items():
        option = recipe.axes[axis][name]
        preset = option.get("preset")
        if preset is not None and preset not in PRESETS:
            raise unknown_name("preset", str(preset), PRESETS)
        given = {k: v for k, v in option.items() if k not in OF_OPTIONS}
        if preset is None and settings.get("adapt", {}) is None:
            # how canonicalizers are made says nothing where an earlier axis chose to have none
            given = {k: v for k, v in given.items() if not k.startswith("adapt.")}
        settings = override(settings, _seeded({**PRESETS.get(preset or "", {}), **given}, seed))
    return settings


def _seeded(value: Any, seed: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _seeded(item, seed) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_seeded(item, seed) for item in value]
    return seed if value == "$seed" else value


def _with_sites(settings: dict[str, Any], trust: bool) -> dict[str, Any]:
    """Sites called "stage:N" by the name that the model at hand has for its N-th latent stage, from 0."""
    adapt = settings.get("adapt")
    sites = adapt.get("sites") if isinstance(adapt, Mapping) else None
    if not isinstance(sites, list) or not any(str(site).startswith("stage:") for site in sites):
        return settings
    stages = _stages(json.dumps(settings["model"], sort_keys=True), trust)
    named = []
    for site in sites:
        kind, _, index = str(site).partition(":")
        if kind == "stage" and not (index.isdigit() and int(index) < len(stages)):
            raise LSEError(
                f"there is no site {site!r}; the sites of this model are stage:0 to stage:{len(stages) - 1}"
            )
        named.append(stages[int(index)] if kind == "stage" else site)
    return override(settings, {"adapt.sites": named})


@lru_cache(maxsize=32)
def _stages(model: str, trust: bool) -> tuple[str, ...]:
    from lse_dec.backbones import backbone_of
    from lse_train.config import Model
    from lse_train.models import base_model
    from lse_train.reading import parse

    settings = json.loads(model)
    settings.pop("initial", None)
    made = base_model(parse(Model, settings, "model."), trust=trust)
    return tuple(stage.name for stage in backbone_of(made).stages(made))
