"""Run folders, recipes and settings of strangers: nothing is written elsewhere, and errors are one line."""

import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from click.testing import CliRunner

import lse_dec
from lse_core.cli import main
from lse_core.errors import LSEError, OutputError
from lse_train import ConfigError, RunConfig, fit
from lse_train.commands.evaluate import _places
from lse_train.log import RunLog
from lse_train.models import make_model
from lse_train.process import sole_writer
from lse_train.reading import read_yaml, set_options
from lse_train.recipes import read_recipe
from lse_train.recipes.results import check_links
from lse_train.sources import build_data
from lse_train.state import check_result, claim, read_state, write_state


def one_line(error: BaseException, *words: str) -> None:
    assert isinstance(error, LSEError)
    assert "\n" not in str(error)
    assert len(str(error)) < 1000
    for word in words:
        assert word in str(error)


# links


@pytest.mark.parametrize("name", [".metrics.csv.partial", "metrics.csv", ".state.pt.partial", "state.pt"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("step\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(precious)
    with RunLog(run, 0) as log:
        log.add(1, {"a": 0.5})
    write_state(run, {"step": 1})
    assert precious.read_text() == "step\n"
    assert (run / "metrics.csv").read_text().split() == ["step,a", "1,0.5"]
    assert read_state(run) == {"step": 1}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["model", "tensorboard"])
def test_a_folder_that_is_a_link_is_refused(tmp_path: Path, name: str, fresh: bool) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError) as caught:
        claim(tmp_path / "run", {}, fresh=fresh)
    one_line(caught.value, f"{name} is a link", "remove it, or choose another --out")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path, {"step": 1})

    def full(state: Any, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"cannot write .*state\.pt: PytorchStreamWriter"):
        write_state(tmp_path, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert read_state(tmp_path) == {"step": 1}


def test_what_a_killed_run_left_of_its_state_goes(tmp_path: Path) -> None:
    (tmp_path / ".state.pt.abc").mkdir()
    (tmp_path / ".state.pt.abc" / "state.pt").touch()
    claim(tmp_path, {}, fresh=False)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("name", ["cells", "cells/b", "cells/b/seed0"])
def test_a_recipe_writes_through_no_link(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (out / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError) as caught:
        check_links(out, [out / "cells" / "b" / "seed0"])
    one_line(caught.value, f"{out / name} is a link", "remove it, or choose another --out")


def test_a_lock_that_is_a_link_spares_what_it_leads_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with suppress(OutputError), sole_writer(tmp_path / "run"):
        pass
    assert precious.read_text() == "kept"


# run folders

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("text", ["[]", "null", "5", "{", DEEP, '{"data": ' + DEEP + "}", '"a"', "\xff"])
def test_damaged_settings_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError) as caught:
        claim(tmp_path, {"steps": 1}, fresh=False)
    one_line(caught.value, "settings.json is damaged", "start over with --fresh")
    claim(tmp_path, {"steps": 1}, fresh=True)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"steps": 1}


GOOD: dict[str, Any] = {"images": 3, "accuracy": None, "invariance_error": 0.5}


@pytest.mark.parametrize(
    "said",
    [
        5,
        {"metrics": 5},
        {"metrics": {"far": 5}},
        {"metrics": {"far": {}}},
        {"metrics": {"far": {**GOOD, "accuracy": "high"}}},
        {"metrics": {"far": {**GOOD, "sites": 5}}},
        {"metrics": {"far": {**GOOD, "sites": {"image": 5}}}},
        {"metrics": {"far": {**GOOD, "sites": {"image": {}}}}},
        {"metrics": {"far": {**GOOD, "sites": {"image": {"displacement_pixels": 1, "residual": "a"}}}}},
        {"metrics": {"far": GOOD}, "seconds": "long"},
    ],
)
def test_odd_results_are_refused(said: Any) -> None:
    site = {"displacement_pixels": 1.0, "residual": None, "not_converged": None}
    check_result({"metrics": {"far": {**GOOD, "sites": {"image": site}}}, "seconds": 1.5, "steps": 3})
    with pytest.raises(ValueError):  # noqa: PT011
        check_result({"seconds": 1.0, "steps": 3, **said} if isinstance(said, dict) else said)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", DEEP),
        ("result.json", "[]"),
        ("result.json", json.dumps({"metrics": {"far": 5}, "seconds": 1, "steps": 1})),
        ("state.pt", [1]),
        ("state.pt", 5),
        ("state.pt", {"model": 5}),
        ("state.pt", {"model": {}, "optimiser": {}, "step": 0}),
        ("state.pt", {"step": "x"}),
        ("state.pt", {"step": -1}),
        ("state.pt", {"step": 10**6}),
        ("state.pt", {"window": 5}),
        ("state.pt", {"window": {"a": 5}}),
        ("state.pt", {"optimiser": 5}),
        ("metrics.csv", "step,a\nx,1\n"),
        ("metrics.csv", "step,a\n1,1,2,3\n"),
        ("metrics.csv", "a,b\n1,2\n"),
        ("metrics.csv", "\xff\xfe"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_damaged_folder_is_one_line(
    settings: dict[str, Any], tmp_path: Path, name: str, content: Any
) -> None:
    config = RunConfig.parse({**settings, "adapt": None, "steps": 2, "checkpoint_every": 1})
    path = tmp_path / name
    if name == "state.pt" and isinstance(content, dict) and "optimiser" not in content:
        model = make_model(config)
        optimiser = torch.optim.AdamW(model.parameters()).state_dict()
        good = {"model": model.state_dict(), "optimiser": optimiser, "step": 0, "seconds": 0.0, "window": {}}
        content = {**good, **content}
    if name == "state.pt":
        torch.save(content, path)
    else:
        path.write_text(content, encoding="latin-1")
    begin = partial(RunLog, tmp_path, 1) if name == "metrics.csv" else partial(fit, config, tmp_path)
    with pytest.raises(ConfigError) as caught:
        begin()
    one_line(caught.value, str(tmp_path), "start over with --fresh")


def test_a_run_that_never_began_does_not_hold_its_folder(settings: dict[str, Any], tmp_path: Path) -> None:
    wrong = {**settings, "adapt": None, "steps": 1, "data": {**settings["data"], "mean": [0.1, 0.2]}}
    with pytest.raises(LSEError, match="2 numbers for images of 1 channels"):
        fit(RunConfig.parse(wrong), tmp_path)
    right = RunConfig.parse({**wrong, "data": {**settings["data"], "mean": 0.1}})
    fit(right, tmp_path)
    with pytest.raises(ConfigError, match="holds a run of other settings: steps differ"):
        fit(RunConfig.parse({**right.plain(), "steps": 2}), tmp_path)


@pytest.mark.parametrize("name", ["state.pt", "result.json", "model"])
def test_a_run_that_began_holds_its_folder(tmp_path: Path, name: str) -> None:
    claim(tmp_path, {"steps": 1}, fresh=False)
    claim(tmp_path, {"steps": 2}, fresh=False)
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="steps differ"):
        claim(tmp_path, {"steps": 3}, fresh=False)


# settings

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: " + "[" * 5000, "is nested too deeply"),
        ("a: " + "{a: " * 5000, "is nested too deeply"),
        ("&a {b: *a}", "*a stands within itself"),
        ("a: &a [[*a]]", "*a stands within itself"),
        (BOMB, "holds too much, aliases counted"),
        ("a: " + "x" * 2_000_000, "is too long"),
        ("a: {b: [0, 2026-01-02]}", "a.b[1] is read as a date"),
        ("a: 2026-13-45", "has a value that cannot be read"),
        ("a: !!binary aGk=", "a is read as a bytes"),
        ("a: !!set {b, c}", "a is read as a set"),
        ("1: 2", "has the key 1, which is not text"),
        ("a: " + "1" * 5000, "has a value that cannot be read"),
        ("a: 0x" + "f" * 5000, "a is a whole number beyond 2**63"),
        ("a: [1", "is not valid YAML"),
    ],
    ids=lambda text: text[:20],
)
def test_yaml_of_a_stranger_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    one_line(caught.value, words, str(path))
    with pytest.raises(ConfigError) as caught:
        set_options([f"key={text}"])
    one_line(caught.value, words, "the value of key")


def test_aliases_within_reason_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: &a {b: 1}\nc: {<<: *a, d: *a}\n")
    assert read_yaml(path) == {"a": {"b": 1}, "c": {"b": 1, "d": {"b": 1}}}


@pytest.mark.parametrize(
    ("adapt", "words"),
    [
        ({"sites": ["image"], "segments": "3"}, "segments"),
        ({"model": 5}, "adapt.model is not a setting"),
        ({"sites": 5}, "under adapt, sites"),
        ({"sites": ["image"], "steps": "x"}, "steps"),
    ],
)
def test_what_adapt_cannot_take_is_one_line(
    settings: dict[str, Any], adapt: dict[str, Any], words: str
) -> None:
    with pytest.raises(LSEError) as caught:
        make_model(RunConfig.parse({**settings, "adapt": adapt}))
    one_line(caught.value, words)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("digits", {"count": 10**12}, "'count': input should be less than or equal to 100000000"),
        ("digits", {"count": 10**8}, "GB, more than"),
        (
            "digits",
            {"count": 1, "resolution": 10**6},
            "'resolution': input should be less than or equal to 8192",
        ),
        ("digits", {"count": 1, "cache_dir": 5}, "data set 'digits' cannot be made of its settings"),
        ("digits", {"count": 1, "mean": 0.5}, "mean and std go under data:"),
        ("image_folder", {"root": ".", "std": 0.5}, "mean and std go under data:"),
        ("scenes", {}, "'count' is missing"),
        ("scenes", {"count": 10**12}, "'count': input should be less than or equal to 100000000"),
        ("scenes", {"count": "x"}, "'count': input should be a valid integer; got 'x'"),
        (
            "scenes",
            {"count": 10, "resolution": 10**6},
            "'resolution': input should be less than or equal to 8192",
        ),
        ("scenes", {"count": 10, "size": "x"}, "'size': input should be a valid number; got 'x'"),
        ("scenes", {"count": 10, "source": 5}, "'source': input should be a valid string; got 5"),
        ("image_folder", {"root": 5}, "root must name a folder; got 5"),
        ("image_folder", {"root": True}, "root must name a folder; got True"),
        ("pictures", {"root": 5}, "root must name a folder; got 5"),
        ("pictures", {"root": "~nobody_x"}, "root must name a folder; got '~nobody_x'"),
        ("pictures", {"root": "x" * 5000}, "data set 'pictures' cannot be made"),
        ("pictures", {"root": ".", "resolution": 10**6}, "less than or equal to 65536; got 1000000"),
        ("image_folder", {"root": ".", "limit": "x"}, "'limit': input should be a valid integer; got 'x'"),
        ("scaled_folder", {"root": ".", "scales": "x"}, "'scales': input should be a valid tuple; got 'x'"),
        ("image_folder", {"root": ".", "classes": 5}, "'classes': input should be a valid tuple; got 5"),
        ("image_folder", {"root": ".", "preprocess": 5}, "'image_folder' cannot be made of its settings"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_a_data_set_cannot_take_is_one_line(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(LSEError) as caught:
        build_data(name, options)
    one_line(caught.value, words)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kwargs = {"in_chans": 1, "num_classes": 1000, "channels": [8, 8, 8, 8], "stem_width": 8}
    model = timm.create_model("resnet10t", **kwargs).eval()
    place = tmp_path_factory.mktemp("saved") / "model"
    lse_dec.save(model, place, model_kwargs=kwargs, training={"data": {"name": "digits"}})
    return place


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (5, "data: must be a name, or settings as `key: value`; got 5"),
        (None, "data: must be a name, or settings as `key: value`; got None"),
        ({"name": 5}, "data: 'name': input should be a valid string; got 5"),
        (
            {"name": "digits", "tests": {"far": 5}},
            "data: 'tests.far': input should be a valid dictionary; got 5",
        ),
        ({"name": "pictures", "val": {"root": 5}}, "root must name a folder"),
        ({"name": "pictures", "val": {"root": "~nobody_x"}}, "pass --trust"),
        ({"name": "pictures", "val": {"root": "x" * 5000}}, "pass --trust"),
        (
            {"name": "digits", "val": {"count": 4, "directions": [["x"]]}},
            "'directions.0': input should be a valid string",
        ),
        ({"name": "digits", "val": {"count": 4, "seed": [["x" * 5000]]}}, "pass --trust"),
        ({"name": "scenes", "val": {}}, "'count' is missing"),
        ({"name": "digits", "val": {"count": 10**12}}, "'count': input should be less than"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_model_that_tells_odd_data_is_one_line(saved: Path, data: Any, words: str) -> None:
    path = saved / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "training": {"data": data}}))
    done = CliRunner().invoke(main, ["evaluate", str(saved)], standalone_mode=True)
    assert done.exit_code == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "unexpected" not in done.stderr
    assert len(done.stderr) < 1000


def test_words_are_no_places_where_folders_have_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("test", "horizontal", "sklearn", "photos"):
        os.mkdir(name)
    words = {"split": "test", "directions": ["horizontal"], "source": "sklearn"}
    assert list(_places(words, {})) == []
    others = {"root": "sklearn", "split": "a/b", "x": [[{"y": "photos"}]], "z": "none"}
    assert sorted(_places(others, {})) == ["a/b", "photos", "sklearn"]


def test_no_bar_is_drawn_above_an_error(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**settings, "adapt": {"sites": ["nowhere"]}}))
    done = CliRunner().invoke(main, ["train", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


# recipes

RECIPE: dict[str, Any] = {
    "table": "mini",
    "title": "Mini",
    "run": {"data": {"name": "digits", "tests": {"all": {}}}},
    "axes": {"a": {"b": {}}},
    "reports": [],
}


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../../x", "/etc", "a\\b", "a\nb", "a\0", "x" * 5000])
@pytest.mark.parametrize("place", ["table", "axis", "option", "profile"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, place: str, name: str) -> None:
    changes: dict[str, Any] = {
        "table": {"table": name},
        "axis": {"axes": {name: {"b": {}}}},
        "option": {"axes": {"a": {name: {}}}},
        "profile": {"profiles": {name: {}}},
    }[place]
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    one_line(
        caught.value,
        {"axis": "axes", "option": "axes.a"}.get(place, place),
        "use letters, digits, spaces and _ . + - % alone",
    )


def test_plain_names_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "axes": {"a": {"40-100 %": {}, "x_1.5+": {}, "größer": {}}}}))
    assert len(read_recipe(path).axes["a"]) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"profiles": "x"},
        {"profiles": {"cpu": 5}},
        {"axes": "x"},
        {"axes": {"a": 5}},
        {"axes": {"a": {"b": 5}}},
        {"axes": {"a": {"b": {"preset": []}}}},
        {"axes": {"a": {"b": {"start": 5}}}, "start": {"axes": ["a"]}},
        {"run": 5},
        {"run": {"data": 5}},
        {"run": {"data": "digits"}, "start": {"axes": ["a"]}},
        {"run": {"data": {"name": "digits", "tests": 5}}, "reports": [{"rows": "a", "columns": "measures"}]},
        {"run": {"data": "digits", "adapt": 5}},
        {"base": "r.yaml"},
        {"base": 5},
        {"base": "none.yaml"},
        {"reports": 5},
        {"seeds": "x"},
    ],
    ids=lambda value: str(value)[:60],
)
def test_odd_recipes_are_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**RECIPE, **changes}))
    done = CliRunner().invoke(main, ["train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "unexpected" not in done.stderr
