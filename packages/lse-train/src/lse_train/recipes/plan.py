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
from lse_train.config import RunConfig
from lse_train.reading import override
from lse_train.recipes.presets import PRESETS
from lse_train.recipes.schema import Recipe

__all__ = ["Cell", "Plan", "make_plan"]

OF_OPTIONS = ("label", "preset", "start")


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


def make_plan(recipe: Recipe, out: Path, *, trust: bool = False) -> Plan:
    """The runs of `recipe` in the folder `out`, checked before any begins.

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
    # seeds outermost: a table that is not finished has whole rows of fewer seeds
    for seed in range(recipe.seeds):
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
    """Sites called "stage:N" by the name that the model at hand has for its N-th latent stage."""
    adapt = settings.get("adapt")
    sites = adapt.get("sites") if isinstance(adapt, Mapping) else None
    if not isinstance(sites, list) or not any(str(site).startswith("stage:") for site in sites):
        return settings
    stages = _stages(json.dumps(settings["model"], sort_keys=True), trust)
    named = []
    for site in sites:
        kind, _, index = str(site).partition(":")
        if kind == "stage" and not (index.isdigit() and int(index) < len(stages)):
            raise LSEError(f"there is no site {site!r}: this model has stage:0 to stage:{len(stages) - 1}")
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
