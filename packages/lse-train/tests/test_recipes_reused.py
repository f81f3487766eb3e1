"""Runs that another table has already: taken over where all is the same, trained where it is not."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from lse_core.card import card_of
from lse_core.errors import LSEError
from lse_train import ConfigError, fit, load_run
from lse_train.recipes import make_plan, open_results, read_recipe, run_recipe

RECIPE: dict[str, Any] = {
    "table": "one",
    "title": "One",
    "run": {
        "model": {
            "name": "numbers",
            "kwargs": {"name": "small_resnet", "resolution": 32},
        },
        "data": {
            "name": "digits",
            "options": {"resolution": 32, "seed": "$seed"},
            "train": {"count": 16},
            "tests": {
                "all": {"count": 4, "split": "test", "reference": True},
                "small": {"count": 4, "split": "test", "reference": True, "scale": [0.4, 0.8]},
            },
            "mean": 0.1,
            "std": 0.3,
        },
        "augment": {"warp_ratio": 2.0},
        "steps": 2,
        "batch_size": 4,
        "device": "cpu",
    },
    "start": {"settings": {"steps": 2}},
    "axes": {"method": {"aug": {"preset": "aug"}, "base": {"preset": "base"}}, "model": {"resnet": {}}},
    "seeds": 1,
    "reports": [{"rows": "method", "columns": "tests"}],
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    run_recipe(written(tmp_path / "one.yaml", RECIPE), {"out": "one"})
    return tmp_path


def written(path: Path, recipe: dict[str, Any], **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**recipe, **changes}, sort_keys=False))
    return path


def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are trained from now on."""
    names: list[str] = []

    def watched(config: Any, folder: Path, **options: Any) -> Any:
        names.append("/".join(folder.parts[1:]))
        return fit(config, folder, **options)

    monkeypatch.setattr("lse_train.recipes.execution.fit", watched)
    return names


def test_what_is_the_same_is_not_trained_again(results: Path, monkeypatch: pytest.MonkeyPatch):
    # other names of a model and of a test set, one test set less, one method more, one set otherwise
    tests = {"tiny": RECIPE["run"]["data"]["tests"]["small"]}
    run = {**RECIPE["run"], "data": {**RECIPE["run"]["data"], "tests": tests}, "log_every": 1}
    axes = {
        "model": {"net": {}},
        "method": {
            "aug": {"preset": "aug"}, "base": {"preset": "base", "optim.lr": 0.1}, "augl": {"preset": "augl"}
        },
    }  # fmt: skip
    path = written(results / "two.yaml", RECIPE, table="two", run=run, axes=axes)
    names = trained(monkeypatch)
    said = run_recipe(path, {"out": "two", "reuse": ["one"]})
    assert names == ["cells/net/base/seed0", "cells/net/augl/seed0"]
    assert said["cells"] == said["of"] == 3

    here, there = (
        json.loads((results / name / "seed0" / "result.json").read_text())
        for name in ("two/cells/net/aug", "one/cells/aug/resnet")
    )
    assert here["metrics"] == {"tiny": there["metrics"]["small"]}
    # what was copied is a run of this folder: it is loaded, and the rest goes on from its start
    folder = results / "two" / "cells" / "net" / "aug" / "seed0"
    training = card_of(load_run(folder)).training
    assert training is not None
    assert training["data"]["tests"] == tests
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["model"]["initial"] == "two/starts/net/seed0"
    assert json.loads((folder / "settings.json").read_text())["data"]["tests"] == tests
    assert open_results("two")[2]["command"].endswith("--reuse one")
    # alone it comes to the same numbers
    alone = run_recipe(path, {"out": "alone"})
    assert alone["table"] == said["table"]

    # with measures of its own, those alone are taken
    names.clear()
    measured = written(
        results / "three.yaml", RECIPE, table="three", measures={"again": {}},
        reports=[{"rows": "method", "columns": "measures", "test": "all"}],
    )  # fmt: skip
    run_recipe(measured, {"out": "three", "reuse": ["one"]})
    assert names == []
    assert (results / "three" / "cells" / "aug" / "resnet" / "seed0" / "measures.json").exists()


def test_other_settings_are_trained(results: Path, monkeypatch: pytest.MonkeyPatch):
    names = trained(monkeypatch)
    # another start alone makes every cell another one
    path = written(results / "two.yaml", RECIPE, start={"settings": {"steps": 3}})
    run_recipe(path, {"out": "two", "reuse": ["one"]})
    assert names == ["starts/resnet/seed0", "cells/aug/resnet/seed0", "cells/base/resnet/seed0"]


def test_unfinished_runs_and_those_of_other_tests_stay_where_they_are(results: Path):
    (results / "one" / "cells" / "aug" / "resnet" / "seed0" / "result.json").unlink()
    tests = {"large": {"count": 4, "split": "test", "scale": [1.0, 2.0], "reference": True}}
    run = {**RECIPE["run"], "data": {**RECIPE["run"]["data"], "tests": tests}}
    from lse_train.recipes.reuse import take_over

    theirs = open_results("one")[1]
    plan = make_plan(read_recipe(written(results / "two.yaml", RECIPE, run=run)), Path("two"))
    assert take_over(plan, Path("two"), Path("one"), theirs) == 1  # the start
    plan = make_plan(read_recipe(written(results / "two.yaml", RECIPE)), Path("three"))
    assert take_over(plan, Path("three"), Path("one"), theirs) == 2
    assert take_over(plan, Path("three"), Path("one"), theirs) == 0


def test_results_that_cannot_be_reused_are_refused(results: Path):
    path = written(results / "two.yaml", RECIPE)
    with pytest.raises(ConfigError, match="holds no results of a recipe"):
        run_recipe(path, {"out": "two", "reuse": [results / "cache"]})
    said = json.loads((results / "one" / "recipe.json").read_text())
    said["versions"]["torch"] = "1.0"
    (results / "one" / "recipe.json").write_text(json.dumps(said))
    with pytest.raises(ConfigError, match=r"one cannot be reused: versions\.torch differ"):
        run_recipe(path, {"out": "two", "reuse": ["one"]})
    assert not (results / "two").exists()
    said["versions"] = open_results("one")[2]["versions"] | {"torch": metadata.version("torch")}
    (results / "one" / "recipe.json").write_text(json.dumps(said))
    (results / "one" / "cells" / "aug" / "resnet" / "seed0" / "result.json").write_text("{}")
    with pytest.raises(LSEError, match=r"aug/resnet/seed0/result\.json is damaged"):
        run_recipe(path, {"out": "two", "reuse": ["one"]})
