"""`lse demo --quick`, as a stranger runs it: what it writes, and how an interrupted run goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

import lse_dec
import lse_train.demo.run
from lse_core.card import card_of
from lse_core.cli import main
from lse_train import ConfigError
from lse_train.demo.run import read_demo, run_demo
from lse_train.recipes import open_results

LSE = Path(sys.executable).with_name("lse")
METHODS = ("aug", "aug_continued", "dec")


def demo(*args):
    return CliRunner().invoke(main, ["demo", "--quick", *map(str, args)], standalone_mode=True)


def refused(out):
    """Another demo in the same folder is refused in one line, whatever it is to do there."""
    for more in (["--seed", 3], ["--seed", 4], ["--seed", 3, "--fresh"]):
        done = demo("--out", out, *more)
        assert done.exit_code == 1
        assert done.stderr == (
            f"error: another process is writing to {out}: wait until it has ended, or choose another --out\n"
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("demo") / "run"
    real = lse_train.demo.run._exported

    def exported(*args):
        refused(out)  # all is trained, and the report is being written
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(lse_train.demo.run, "_exported", exported)
        done = demo("--seed", 3, "--out", out)
    assert done.exit_code == 0, done.stderr
    return out, done


def test_the_folder_holds_the_results_beside_those_of_a_recipe(run):
    out, done = run
    own = {"dec", "model.onnx", "report.html", "results.json"}
    assert {p.name for p in out.iterdir()} == own | {".lock", "cells", "recipe.json", "starts", "table.md"}
    assert {p.name for p in (out / "dec").iterdir()} == {"config.json", "model.safetensors"}
    assert "report.html" in done.stdout.splitlines()[-1]
    assert "This was a quick run of a few steps: its numbers mean nothing." in done.stdout
    recipe, plan, notes = open_results(out)
    assert recipe.plain() == read_demo(seed=3, quick=True).plain()
    assert [cell.seed for cell in plan.cells] == [3, 3]
    assert notes["command"] == "lse demo --seed 3 --quick"


def test_results_hold_every_promised_number(run):
    out, done = run
    results = json.loads((out / "results.json").read_text())
    assert results["seed"] == 3
    assert results["quick"] is True
    assert {"python", "torch", "timm", "lse-core", "lse-dec", "lse-export"} <= set(results["versions"])
    brackets = {"0.4-0.6", "0.6-0.8", "0.8-1.25", "1.25-1.6", "1.6-2"}
    for method in METHODS:
        scores = results["methods"][method]
        assert 0 <= scores["accuracy"] <= 1
        assert 0 <= scores["invariance_error"] <= 2
        assert set(scores["accuracy_by_scale"]) == brackets
        assert set(scores["invariance_error_by_scale"]) == brackets
    solver = results["solver"]
    assert (solver["name"], solver["steps"]) == ("anderson", 5)
    assert len(solver["residuals"]) >= solver["steps"]
    assert all(np.isfinite(solver["residuals"]))
    onnx = results["onnx"]
    assert onnx["opset"] == 18
    # a quick run's update is too raw to contract, so rounding may be amplified: the run must say so
    assert onnx["verified"] or "NOT equal" in done.stdout
    assert np.isfinite(onnx["max_abs_diff"])
    assert onnx["batch_sizes"] == [1, 5]
    assert onnx["latency_ratio_vs_eager"] > 0
    assert not {"GridSample", "Loop", "If", "Scan"} & set(onnx["ops"])


def test_training_with_equal_budgets(run):
    training = json.loads((run[0] / "results.json").read_text())["training"]
    assert training["dec"]["steps"] == training["aug_continued"]["steps"] > 0
    assert training["aug"]["equivariance"] is None
    assert len(training["dec"]["equivariance"]) == 2


def test_the_model_runs_elsewhere(run):
    session = onnxruntime.InferenceSession(run[0] / "model.onnx", providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(3, 1, 96, 96)).astype(np.float32)
    (scores,) = session.run(None, {session.get_inputs()[0].name: image})
    assert scores.shape == (3, 1000)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1, atol=1e-4)


def test_numbers_are_those_of_the_recipes_runs(run):
    results = json.loads((run[0] / "results.json").read_text())
    cell = json.loads((run[0] / "cells" / "dec" / "seed3" / "result.json").read_text())
    dec = results["methods"]["dec"]
    assert dec["invariance_error"] == cell["metrics"]["all"]["invariance_error"]
    assert dec["accuracy_by_scale"]["1.6-2"] == cell["metrics"]["1.6-2"]["accuracy"]
    assert results["movement"]["pixels"] == cell["metrics"]["all"]["sites"]["image"]["displacement_pixels"]
    assert cell["steps"] == results["training"]["dec"]["steps"] == 15


def test_the_model_can_be_read_back(run):
    model = lse_dec.load(run[0])
    card = card_of(model)
    assert card.class_names[7] == "007"
    assert card.training["data"]["tests"]["1.6-2"]["scale"] == [1.6, 2.0]
    image = torch.randn(3, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(run[0] / "model.onnx", providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        scores = model(image).numpy()
    np.testing.assert_allclose(scores, exported, atol=1e-3 * (exported.max() - exported.min()))


def test_the_page_needs_nothing_from_elsewhere(run):
    page = (run[0] / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 5
    assert all(source.startswith("data:image/") for source in sources)
    assert "QUICK RUN" in page
    assert "undefined" not in page.lower()


def test_an_interrupted_run_goes_on_and_ends_with_the_same_numbers(run, tmp_path):
    out = tmp_path / "run"
    command = [LSE, "demo", "--quick", "--seed", "3", "--out", out]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background ignores interrupts, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    start = out / "starts" / "seed3" / "result.json"
    deadline = time.monotonic() + 600
    while not start.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    refused(out)
    assert start.exists()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("interrupted")
    assert not {p.name for p in out.iterdir()} & {"dec", "model.onnx", "report.html", "results.json"}
    trained = start.stat().st_mtime_ns

    done = demo("--seed", 3, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert start.stat().st_mtime_ns == trained  # the start was not trained again
    whole, again = (json.loads((place / "results.json").read_text()) for place in (run[0], out))
    for key in ("methods", "training", "movement"):
        assert again[key] == whole[key]


def test_another_demo_takes_the_place_of_the_one_before(tmp_path, monkeypatch):
    class Begun(Exception):
        pass

    def begin(waves, jobs, **options):
        raise Begun([work.name for works in waves for work in works if not work.done])

    monkeypatch.setattr("lse_train.recipes.runner.run_missing", begin)
    names = ["starts/seed1", "cells/aug_continued/seed1", "cells/dec/seed1"]

    def begun(**options):
        with pytest.raises(Begun) as caught:
            run_demo(tmp_path, quick=True, **options)
        return caught.value.args[0]

    assert begun(seed=1) == names
    done = tmp_path / "starts" / "seed1" / "result.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    assert begun(seed=1) == names[1:]
    assert begun(seed=1, fresh=True) == names
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    assert begun(seed=2)[0] == "starts/seed2"
    assert not done.exists()

    # but the results of another recipe stay
    told = json.loads((tmp_path / "recipe.json").read_text())
    told["recipe"]["table"] = "table2"
    told["recipe"]["run"]["steps"] = 7
    (tmp_path / "recipe.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"holds results of other settings: run\.seed, run\.steps differ"):
        run_demo(tmp_path, seed=1, quick=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    done = demo("--out", tmp_path / "x")
    assert done.exit_code == 1
    assert "cannot write" in done.stderr


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "x").write_text("kept")
    done = demo("--out", tmp_path / "x")
    assert done.exit_code == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot write" in done.stderr
    assert (tmp_path / "x").read_text() == "kept"


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("lse_export", "lse demo needs lse_export, which is not installed: pip install 'lse-train[demo]'"),
        ("jinja2", "pages need jinja2 and matplotlib: pip install 'lse-core[report]'"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_trained(missing, words, tmp_path, monkeypatch):
    gone = ("lse_train.demo.", "lse_core.html", missing)
    for name in [name for name in sys.modules if name.startswith(gone)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    done = demo("--out", tmp_path / "x")
    assert done.exit_code == 1
    assert words in done.stderr
    assert not (tmp_path / "x").exists()


def test_an_unknown_device():
    done = demo("--device", "abacus")
    assert done.exit_code == 1
    assert "abacus" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
