"""`lse demo --quick`, as a stranger runs it: what it writes, and what an interrupted run leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from lse_dec.demo.run import load_run
from lse_dec.demo.settings import DemoSettings

from lse_core.errors import LSEError

LSE = Path(sys.executable).with_name("lse")
METHODS = ("aug", "aug_continued", "dec")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("demo") / "run"
    done = subprocess.run(
        [LSE, "demo", "--quick", "--seed", "3", "--out", out], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_folder_holds_the_results_and_nothing_else(run):
    out, done = run
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert files == ["dec/config.json", "dec/model.safetensors", "model.onnx", "report.html", "results.json"]
    assert "report.html" in done.stdout.splitlines()[-1]


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


def test_the_model_can_be_read_back(run):
    settings, model = load_run(run[0])
    assert settings == replace(DemoSettings().quick(), seed=3)
    image = torch.randn(3, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(run[0] / "model.onnx", providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        scores = model(image).numpy()
    np.testing.assert_allclose(scores, exported, atol=1e-3 * (exported.max() - exported.min()))


def test_a_folder_without_a_finished_run(tmp_path):
    with pytest.raises(LSEError, match=r"no folder of a finished lse demo: results\.json: No such file"):
        load_run(tmp_path)
    (tmp_path / "results.json").write_text('{"settings": {"seeds": 3}}')
    with pytest.raises(LSEError, match=r"TypeError: .*'seeds'"):
        load_run(tmp_path)
    (tmp_path / "results.json").write_text('{"settings": {"seed": 3}}')
    with pytest.raises(LSEError, match=r"there is no folder .*dec: give"):
        load_run(tmp_path)


def test_the_page_needs_nothing_from_elsewhere(run):
    page = (run[0] / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 5
    assert all(source.startswith("data:image/") for source in sources)
    assert "QUICK RUN" in page
    assert "undefined" not in page.lower()


def test_an_interrupted_run_leaves_nothing_that_looks_whole(tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [LSE, "demo", "--quick", "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background ignores interrupts, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not out.is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted"
    assert list(out.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    done = subprocess.run([LSE, "demo", "--out", tmp_path / "x"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "cannot write" in done.stderr


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "x").write_text("kept")
    done = subprocess.run([LSE, "demo", "--out", tmp_path / "x"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot write" in done.stderr
    assert (tmp_path / "x").read_text() == "kept"


def test_an_unknown_device():
    done = subprocess.run([LSE, "demo", "--device", "abacus"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "abacus" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
