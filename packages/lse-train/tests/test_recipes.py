"""Recipes: what they refuse, what they stand for, and that a killed one ends with the same numbers."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lse_core.errors import LSEError, LSEWarning, OutputError, UnknownNameError
from lse_train import ConfigError
from lse_train.process import sole_writer
from lse_train.reading import parse
from lse_train.recipes import Recipe, make_plan, open_results, read_recipe, run_recipe
from lse_train.recipes.report import Result, Spread, markdown, numbers, page

MODEL = "lse_dec.recipes.models:number_model"
MINIATURE: dict[str, Any] = {
    "table": "mini",
    "title": "Miniature",
    "run": {
        "model": {"name": MODEL, "kwargs": {"name": "small_resnet", "resolution": 32}},
        "data": {
            "name": "digits",
            "options": {"resolution": 32, "split_seed": "$seed", "seed": "$seed"},
            "train": {"count": 40, "scale": [0.8, 1.25]},
            "tests": {
                "all": {"count": 8, "split": "test", "variants": 2, "reference": True},
                "small": {"count": 8, "split": "test", "variants": 2, "reference": True, "scale": [0.4, 0.8]},
            },
            "mean": 0.1,
            "std": 0.3,
        },
        "augment": {"warp_ratio": 2.0},
        "steps": 6,
        "batch_size": 8,
        "checkpoint_every": 1,
        "device": "cpu",
    },
    "start": {"axes": ["model"], "settings": {"steps": 3}},
    "axes": {
        "method": {
            "aug": {"label": "Aug continued", "preset": "aug"},
            "dec": {"preset": "dec", "adapt.projection": 4, "adapt.widths": [4, 4], "adapt.resolution": 8},
        },
        "model": {"resnet": {"label": "ResNet"}},
    },
    "seeds": 2,
    "measures": {"2 steps": {"steps": 2}, "naive": {"solver": "naive"}},
    "reports": [
        {"rows": "method", "columns": "tests", "values": ["accuracy", "invariance_error"], "average": True},
        {"rows": "method", "columns": "measures", "test": "all", "values": ["residual"], "title": "Steps"},
    ],
    "profiles": {"cpu": {"run.log_every": 5}, "gpu": {"run.batch_size": 16}},
}  # fmt: skip


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump({**MINIATURE, **changes}, sort_keys=False))
    return path


def test_overrides_reach_the_recipe_or_its_run(tmp_path: Path):
    recipe = read_recipe(written(tmp_path), "gpu", {"seeds": 1, "optim.lr": 0.5, "run.steps": 7})
    assert (recipe.seeds, recipe.run["batch_size"], recipe.run["steps"]) == (1, 16, 7)
    assert recipe.run["optim"] == {"lr": 0.5}
    assert read_recipe(written(tmp_path)).run["log_every"] == 5  # the first size


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tabel": 1}, "'tabel'. Did you mean 'table'"),
        ({"reports": [{"rows": "methd", "columns": "tests"}]}, "Did you mean 'method'"),
        ({"reports": [{"rows": "method", "columns": "test"}]}, "Did you mean 'tests'"),
        ({"reports": [{"rows": "method", "columns": "model", "test": "al"}]}, "Did you mean 'all'"),
        ({"start": {"axes": ["modle"]}}, "Did you mean 'model'"),
        ({"run": {**MINIATURE["run"], "batchsize": 3}}, "Did you mean 'batch_size'"),
        ({"axes": {"method": {"a": {"preset": "agu"}}, "model": {"m": {}}}}, "Did you mean 'aug'"),
        (
            {"axes": {"method": {"a": {"optim.lrr": 1}}, "model": {"m": {}}}},
            "unknown setting 'lrr'. Did you mean 'lr'",
        ),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_one(tmp_path: Path, changes: dict[str, Any], text: str):
    with pytest.raises(UnknownNameError) as caught:
        make_plan(read_recipe(written(tmp_path, **changes)), tmp_path)
    assert text in str(caught.value)


def test_what_cannot_be_is_refused(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="'cpu'"):
        read_recipe(written(tmp_path), "cup")
    with pytest.raises(ConfigError, match="must say which test set"):
        read_recipe(written(tmp_path, reports=[{"rows": "method", "columns": "model"}]))
    with pytest.raises(ConfigError, match="'jobs': input should be greater than or equal to 1; got 0"):
        read_recipe(written(tmp_path), overrides={"jobs": 0})
    sites = {"method": {"a": {"preset": "dec", "adapt.sites": ["stage:7"]}}, "model": {"m": {}}}
    with pytest.raises(LSEError, match="stage:0 to stage:3"):
        make_plan(read_recipe(written(tmp_path, axes=sites)), tmp_path)


def test_the_plan_is_every_cell_over_one_start_a_model_and_seed(tmp_path: Path):
    axes = {
        "method": {
            "base": {"preset": "base"},
            "dec": {"preset": "dec", "adapt.sites": ["image", "stage:1"], "steps": 9},
        },
        "model": {"a": {"model.kwargs.stem_width": 8, "start": {"optim.lr": 0.5}}, "b": {}},
    }
    plan = make_plan(read_recipe(written(tmp_path, axes=axes)), tmp_path)
    assert list(plan.starts) == ["a/seed0", "b/seed0", "a/seed1", "b/seed1"]
    start = plan.starts["a/seed1"]
    assert (start.steps, start.seed, start.adapt, start.data.tests) == (3, 1, None, {})
    assert start.model.kwargs["stem_width"] == 8
    assert start.optim.lr == 0.5
    assert plan.starts["b/seed1"].optim.lr != 0.5
    assert start.data.options["split_seed"] == 1
    cells = {cell.name: cell.config for cell in plan.cells}
    assert len(cells) == 8
    assert cells["base/a/seed1"].optim.lr != 0.5
    dec = cells["dec/b/seed1"]
    assert dec.adapt is not None
    assert dec.adapt["sites"] == ["image", "layer2"]
    assert dec.steps == 9
    assert dec.model.initial == str(tmp_path / "starts" / "b" / "seed1")
    assert cells["base/a/seed0"].augment.warp_ratio == 1.0
    assert cells["base/a/seed0"].adapt is None


RECIPES = sorted((Path(__file__).parents[3] / "tools" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem != "digits"], ids=lambda p: p.stem)
def test_the_recipes_are_plans_in_both_sizes(path: Path, tmp_path: Path):
    for size in ("cpu", "gpu"):
        recipe = read_recipe(path, size)
        plan = make_plan(recipe, tmp_path)
        assert recipe.table == path.stem
        assert recipe.seeds == 3
        assert len(plan.cells) >= 9
        # one start for all methods: what makes them comparable
        assert len(plan.starts) < len({cell.name for cell in plan.cells})
        assert all(cell.config.model.initial for cell in plan.cells)
        # every option of every axis makes a difference somewhere
        for axis, options in recipe.axes.items():
            runs = {name: {c.name for c in plan.cells if c.place[axis] == name} for name in options}
            assert len({frozenset(names) for names in runs.values()}) == len(options), axis
        budgets = {cell.config.steps for cell in plan.cells}
        assert len(budgets) == 1


def test_numbers_are_means_over_seeds_of_means_over_columns():
    recipe = parse(Recipe, {key: value for key, value in MINIATURE.items() if key != "profiles"})
    report = recipe.reports[0]
    results = [
        Result({"method": "aug", "model": "resnet"}, seed, 1.0,
               {"all": {"accuracy": a}, "small": {"accuracy": b}}, {})
        for seed, (a, b) in enumerate([(0.5, 0.1), (0.7, 0.5)])
    ]  # fmt: skip
    found = numbers(recipe, report, results, "aug", "all", "accuracy")
    assert found is not None
    assert found == Spread(pytest.approx(60.0), pytest.approx(200**0.5), 2)
    found = numbers(recipe, report, results, "aug", None, "accuracy")
    assert found is not None
    assert found.mean == pytest.approx(45.0)
    assert found.deviation == pytest.approx(450**0.5)  # of 30 and 60
    assert numbers(recipe, report, results, "dec", "all", "accuracy") is None
    text = markdown(recipe, results[:1], 4)
    assert "1 of 4 runs are finished. Partial" in text
    assert "| Aug continued | 50.0 (1) |" in text


def test_the_page_asks_shows_tells_and_says_how_to_get_it_again():
    recipe = read_recipe_of({**MINIATURE, "about": "Which one is better?"})
    results = [
        Result({"method": method, "model": "resnet"}, seed, 90.0, {test: {"accuracy": share, **rest}
               for test in ("all", "small")}, {})
        for seed in (0, 1)
        for method, share, rest in (("aug", 0.5, {}), ("dec", 0.6 + seed / 10, {"invariance_error": 0.1}))
    ]  # fmt: skip
    notes = {"command": "lse train mini.yaml", "machine": "a toaster", "versions": {"torch": "9"}}
    title, about, count, *_, sentences, command = page(recipe, results, 4, notes).strip().split("\n\n")
    assert (title, about, count) == ("# Miniature", "Which one is better?", "4 of 4 runs are finished.")
    assert sentences.splitlines() == [
        'In the column "mean" of the first table, dec is best by accuracy in % (65.0 ± 7.1), and Aug '
        "continued is last (50.0 ± 0.0).",
        "Every number is a mean over the seeds that are done (0, 1), ± their sample standard deviation where "
        "there is more than one.",
        "Training took 6.0 minutes, common starts and measurements not counted, on a machine with a toaster; "
        "the versions were torch 9.",
    ]
    assert command == "`lse train mini.yaml`"
    # without a number there is no best row, and nothing that looks like one
    assert "best" not in page(recipe, [], 4, notes)


def test_seeds_count_from_the_runs_own(tmp_path: Path):
    recipe = read_recipe(written(tmp_path), "cpu", {"seed": 5})
    plan = make_plan(recipe, tmp_path)
    assert list(plan.starts) == ["resnet/seed5", "resnet/seed6"]
    assert plan.starts["resnet/seed6"].data.options["split_seed"] == 6
    waves = plan.waves(tmp_path, recipe.measures)
    assert [[work.name for work in works] for works in waves] == [
        ["starts/resnet/seed5"], ["cells/aug/resnet/seed5", "cells/dec/resnet/seed5"],
        ["starts/resnet/seed6"], ["cells/aug/resnet/seed6", "cells/dec/resnet/seed6"],
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"run\.seed must be a whole number"):
        make_plan(read_recipe(written(tmp_path), "cpu", {"seed": "first"}), tmp_path)


def read_recipe_of(settings: dict[str, Any]) -> Any:
    from lse_train.recipes import Recipe

    return parse(Recipe, {key: value for key, value in settings.items() if key != "profiles"})


def command(path: Path, out: Path, *more: str) -> list[str]:
    code = "import sys; from lse_core.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, "train", str(path), "--profile", "cpu", "--out", str(out), *more]


def test_a_killed_recipe_ends_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)  # starts are named relative to the results
    path = written(tmp_path, seeds=1)
    whole = run_recipe(path, {"profile": "cpu", "out": "whole"})
    assert (whole["cells"], whole["of"]) == (2, 2)

    process = subprocess.Popen(
        command(path, Path("killed")), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state = tmp_path / "killed" / "cells" / "dec" / "resnet" / "seed0" / "state.pt"
    deadline = time.monotonic() + 600
    while not state.exists():  # in the middle of the last run
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (state.parent / "result.json").exists()
    kept = (tmp_path / "killed" / "table.md").read_text()
    assert kept.startswith("# Miniature\n")
    assert "1 of 2 runs are finished. Partial" in kept
    assert kept.endswith("`lse train mini.yaml --profile cpu`\n")

    first = tmp_path / "killed" / "cells" / "aug" / "resnet" / "seed0" / "result.json"
    before = first.stat().st_mtime_ns
    again = run_recipe(path, {"profile": "cpu", "out": "killed"})
    assert first.stat().st_mtime_ns == before  # what was finished is not done again
    assert again["table"] == whole["table"]
    for name in ("aug", "dec"):
        for file in ("result.json", "measures.json"):
            one, other = (
                json.loads((tmp_path / out / "cells" / name / "resnet" / "seed0" / file).read_text())
                for out in ("whole", "killed")
            )
            one.pop("seconds", None), other.pop("seconds", None)
            assert one == other

    with (
        sole_writer(Path("killed")),
        pytest.raises(OutputError, match="another process is writing to killed"),
    ):
        run_recipe(path, {"profile": "cpu", "out": "killed", "fresh": True})
    assert first.exists()
    # the same folder with other settings is refused by name; more seeds are welcome
    with pytest.raises(ConfigError, match=r"run\.steps"):
        run_recipe(path, {"profile": "cpu", "out": "killed", "set": {"steps": 7}})
    recipe, plan, notes = open_results("whole")
    assert (recipe.table, len(plan.cells)) == ("mini", 2)
    assert notes["command"].startswith("lse train")

    tool = runpy.run_path(str(Path(__file__).parents[3] / "tools" / "tables.py"))
    tool["main"](["whole", "--write", "docs/mini.md"])
    page = (tmp_path / "docs" / "mini.md").read_text()
    assert page.startswith("# Miniature\n")
    assert "2 of 2 runs are finished." in page
    assert whole["table"][4] in page
    assert "![Miniature](mini.svg)" in page
    assert str(tmp_path) not in page
    drawn = (tmp_path / "docs" / "mini.svg").read_bytes()
    tool["main"](["killed", "--write", "docs/mini.md"])
    assert (tmp_path / "docs" / "mini.svg").read_bytes() == drawn
    # what people wrote on the page stays when it is written again
    first, how, measured = page.partition("## How it was measured")
    answer, remark = "## Answer\n\nThe DEC.\n\n## Also tried\n\n| a |\n|---|\n\n", "\nIt rained.\n"
    (tmp_path / "docs" / "mini.md").write_text(
        first.replace("2 of 2", "1 of 2") + answer + how + measured + remark
    )
    for _ in range(2):
        tool["main"](["whole", "--write", "docs/mini.md"])
        assert (tmp_path / "docs" / "mini.md").read_text() == first + answer + how + measured + remark
    with pytest.raises(SystemExit, match="holds no results of a recipe"):
        tool["main"]([str(tmp_path / "docs")])


def test_runs_side_by_side_give_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LSE_CACHE", str(tmp_path / "cache"))
    axes = {"method": {"dec": MINIATURE["axes"]["method"]["dec"]}, "model": {"resnet": {}}}
    path = written(tmp_path, axes=axes, start=None, measures={}, reports=MINIATURE["reports"][:1])
    alone = run_recipe(path, {"out": str(tmp_path / "alone")})
    packed = run_recipe(path, {"out": str(tmp_path / "packed"), "set": {"jobs": 2}})
    assert packed["table"] == alone["table"]
    assert not list((tmp_path / "packed").rglob("errors.txt"))
    # a third seed that cannot be written ends the recipe with what the worker said
    (tmp_path / "packed" / "cells" / "dec" / "resnet" / "seed2").mkdir()
    (tmp_path / "packed" / "cells" / "dec" / "resnet" / "seed2" / "settings.json").write_text("{")
    with pytest.raises(LSEError, match=r"cells/dec/resnet/seed2 failed: .*settings\.json is damaged"):
        run_recipe(path, {"out": str(tmp_path / "packed"), "seeds": 3, "set": {"jobs": 2}})


def test_recipes_with_the_former_name_of_profiles_are_read(tmp_path: Path):
    raw = {key: value for key, value in MINIATURE.items() if key != "profiles"}
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump({**raw, "scales": MINIATURE["profiles"]}, sort_keys=False))
    with pytest.warns(LSEWarning, match="the key `scales` of recipes is now called `profiles`"):
        assert read_recipe(path, "gpu") == read_recipe(written(tmp_path), "gpu")
    # and so is what an earlier version wrote of its recipe
    assert parse(Recipe, {**read_recipe(path.with_name("mini.yaml")).plain(), "scales": {}}).seeds == 2
