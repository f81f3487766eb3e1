"""The demo: the recipe beside this file, then pictures, an exported model and a page, whole or not at all."""

from __future__ import annotations

import copy
import csv
import json
import os
import platform
import statistics
import time
from collections.abc import Mapping
from importlib import metadata
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

import lse_export
from lse_core.atomic import staging
from lse_core.html import embedded
from lse_core.plugins import registry
from lse_core.progress import Bars
from lse_data import DigitsDataset, build_digits
from lse_dec.adaptation import AdaptedModel
from lse_dec.checkpoint import load, save
from lse_train import ConfigError, RunConfig
from lse_train.demo import figures
from lse_train.demo.report import render_report
from lse_train.recipes.execution import device_of, measured
from lse_train.recipes.plan import RESULT
from lse_train.recipes.report import read_results
from lse_train.recipes.results import changed, open_results
from lse_train.recipes.runner import complete
from lse_train.recipes.schema import Recipe, read_recipe
from lse_train.state import write_json

__all__ = ["FILES", "MODEL", "RESULTS", "read_demo", "run_demo"]

MODEL, RESULTS = "dec", "results.json"
"""Beside the recipe's runs: the folder of the DEC model, and the numbers."""

FILES = (f"{MODEL}/model.safetensors", f"{MODEL}/config.json", "model.onnx", "report.html", RESULTS)
"""What a run writes beside the recipe's runs, in the order it is put in place: results.json comes last and
vouches for the rest."""

ALL = "all"
"""The test set over all sizes; the others are ranges of sizes."""

SHOWN = 200
"""Test images whose solves are drawn."""

BATCHES = (1, 5)
"""Batch sizes at which the exported model is compared with the one in torch."""


def read_demo(*, seed: int = 0, device: str = "cpu", quick: bool = False) -> Recipe:
    """The demo's recipe, for one seed.

    Args:
        seed: of all randomness.
        device: "cpu", "cuda" or "auto".
        quick: cut to a few steps, to see that everything works; its numbers mean nothing.
    """
    with as_file(files("lse_train.demo").joinpath("recipe.yaml")) as path:
        return read_recipe(path, "quick" if quick else "full", {"seed": seed, "device": device})


def run_demo(
    out: Path, *, seed: int = 0, device: str = "cpu", quick: bool = False, fresh: bool = False
) -> dict[str, Any]:
    """Train what is missing, measure, export and report; returns what results.json holds.

    Called again with the same arguments after an interruption it goes on where it stopped; a demo of other
    arguments in the same folder is replaced.

    Args:
        out: output folder, made if absent. It is a folder of a recipe's results, with the files named in
            `FILES` beside them; `lse_dec.load` reads the DEC model.
        seed: see `read_demo`.
        device: see `read_demo`.
        quick: see `read_demo`.
        fresh: remove what an earlier call trained, even with the same arguments.

    Raises:
        RunInterruptedError: SIGINT or SIGTERM came while a model was trained; its state is written.
        ConfigError: the folder holds the results of another recipe.
        OutputError: the folder cannot be written.
    """
    recipe = read_demo(seed=seed, device=device, quick=quick)
    started = time.perf_counter()
    plan = complete(
        recipe,
        out,
        command=f"lse demo --seed {seed}{' --quick' if quick else ''}",
        fresh=fresh or _replaces(out, recipe),
    )
    elapsed = time.perf_counter() - started
    (start, begun), cells = next(iter(plan.starts.items())), {c.place["method"]: c for c in plan.cells}
    folders = {"aug": out / "starts" / start, **{name: out / "cells" / c.name for name, c in cells.items()}}
    said = {
        name: json.loads((folder / RESULT).read_text(encoding="utf-8")) for name, folder in folders.items()
    }
    config = cells[MODEL].config
    metrics = {r.place["method"]: r.metrics for r in read_results(out, plan.cells, False)}
    with staging(out / RESULTS) as partial, torch.random.fork_rng(), Bars() as bars:
        torch.manual_seed(seed)
        bars.line("measuring the start, Aug")
        bar = bars.add("measuring the start, Aug", 4)
        # the recipe measures its cells, but not their start
        metrics = {"aug": measured(load(folders["aug"]), config), **metrics}
        bar.update(1, text="exporting the model")
        bars.line("exporting the model")
        model = load(folders[MODEL])
        save(model, partial / MODEL, class_names=[f"{number:03d}" for number in range(1000)])
        dec = load(partial / MODEL)
        data = build_digits(**config.data.split(ALL))
        onnx = _exported(dec, data, partial / "model.onnx")
        bar.update(2, text="drawing the pictures")
        bars.line("drawing the pictures")
        results: dict[str, Any] = {
            "seed": seed,
            "quick": quick,
            "seconds": 0.0,
            "settings": _settings(config, begun),
            "versions": _versions(),
            "methods": {name: _scores(found) for name, found in metrics.items()},
            "training": {name: _training(folders[name], said[name]["steps"]) for name in metrics},
            "onnx": onnx,
        }
        movement = metrics[MODEL][ALL]["sites"]["image"]["displacement_pixels"]
        looked, pictures = _pictures(dec.to(device_of(config)), data, config, results["methods"])
        results |= {**looked, "movement": {"pixels": movement, "images": min(60, len(data))}}
        bar.update(3)
        # runs that an earlier call trained took their time too
        training = max(elapsed, sum(each["seconds"] for each in said.values()))
        results["seconds"] = round(training + time.perf_counter() - started - elapsed, 1)
        (partial / "report.html").write_text(render_report(results, pictures), encoding="utf-8")
        write_json(partial / RESULTS, results)
        (out / MODEL).mkdir(exist_ok=True)
        for name in FILES:
            os.replace(partial / name, out / name)
    return results


def _replaces(out: Path, recipe: Recipe) -> bool:
    """Whether `out` holds a demo of other settings; anything else that is there, the runner refuses."""
    try:
        earlier = open_results(out)[0]
    except ConfigError:
        return False
    return earlier.table == recipe.table and bool(changed(out, recipe))


def _scores(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy in [0, 1] and InvE over all sizes and by range of sizes, as they stand in results.json."""
    found: dict[str, Any] = {}
    for key in ("accuracy", "invariance_error"):
        found[key] = metrics[ALL][key]
        found[f"{key}_by_scale"] = {test: each[key] for test, each in metrics.items() if test != ALL}
    return found


def _training(folder: Path, steps: int) -> dict[str, Any]:
    """Steps, the mean loss over the last tenth of the log, and Eq. 5's over the first and the last tenth."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tenth = max(1, len(rows) // 10)

    def mean(part: list[dict[str, str]], name: str) -> float:
        return statistics.fmean(float(row[name]) for row in part)

    motion = "loss/equivariance/image"
    learnt = [mean(part, motion) for part in (rows[:tenth], rows[-tenth:])] if motion in rows[0] else None
    return {"steps": steps, "loss": mean(rows[-tenth:], "loss/task"), "equivariance": learnt}


def _exported(dec: AdaptedModel, data: DigitsDataset, path: Path) -> dict[str, Any]:
    """Write the ONNX file and compare it with the model on test images, CPU."""
    inputs = figures.normalised(dec, data.images[: 2 * max(BATCHES)])
    report = lse_export.export_onnx(dec, inputs[:2], path)
    # a difference is a result like any other: the page shows it, the run goes on
    checked = lse_export.verify(path, dec, inputs, batch_sizes=BATCHES, throw=False)
    ratio = lse_export.latency_ratio(path, dec, inputs[:8])
    return {
        "max_abs_diff": float(checked.max_abs_diff),
        "relative_diff": float(checked.relative),
        "verified": bool(checked.ok),
        "opset": report.opset,
        "nodes": report.nodes,
        "ops": dict(sorted(report.ops.items())),
        "batch_sizes": list(checked.batch_sizes),
        "providers": list(checked.providers),
        "latency_ratio_vs_eager": float(ratio),
    }


def _pictures(
    dec: AdaptedModel, data: DigitsDataset, config: RunConfig, methods: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The solver's residuals by step, and the pictures as data URIs by name."""
    x = figures.normalised(dec, data.images[:SHOWN])
    canonicalizer = dec.canonicalizers["image"]
    adapt = config.adapt or {}
    traces = {}
    with torch.no_grad():
        warp = canonicalizer(x).warp
        for name in ("naive", "anderson", "broyden"):
            other = copy.deepcopy(canonicalizer)
            other.solver = registry().get("solver", name)()
            traces[name] = other(x, steps=12).solution.residuals.cpu().numpy()
    tests = config.data.split(ALL)
    pictures = {
        "samples": embedded(figures.samples_figure(tests), "png"),
        "canonical": embedded(figures.canonical_figure(dec, tests), "png"),
        "warps": embedded(figures.warps_figure(warp[: min(60, len(x))], data.scales[:60])),
        "residuals": embedded(figures.residual_figure(traces, adapt["steps"])),
        "accuracy": embedded(figures.accuracy_figure(methods)),
    }
    residuals = [float(value) for value in traces[adapt["solver"]].mean(1)]
    return {"solver": {"name": adapt["solver"], "steps": adapt["steps"], "residuals": residuals}}, pictures


def _settings(config: RunConfig, start: RunConfig) -> dict[str, Any]:
    """What of the recipe the page tells."""
    train, test = config.data.split("train"), config.data.split(ALL)
    return {
        "seed": config.seed,
        "device": config.device,
        "resolution": test["resolution"],
        "train_images": train["count"],
        "train_scale": train["scale"],
        "test_scale": test["scale"],
        "test_bases": test["count"],
        "variants": test["variants"] - 1,
        "batch_size": config.batch_size,
        "steps_aug": start.steps,
        "steps_more": config.steps,
    }


def _versions() -> dict[str, str]:
    ours = ("lse-core", "lse-data", "lse-dec", "lse-train", "lse-export")
    found = {"python": platform.python_version()}
    for name in (*ours, "torch", "timm", "onnx", "scikit-learn", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
