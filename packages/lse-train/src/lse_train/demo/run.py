"""The demo's run: data, three trainings, measurements, export, and the files, whole or not at all."""

from __future__ import annotations

import copy
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lse_core.errors import LSEError, OutputError
from lse_core.plugins import registry
from lse_core.separable import SeparableWarp
from lse_dec.adaptation import AdaptedModel, observe
from lse_dec.checkpoint import load, save
from lse_dec.losses import warp_distance
from lse_train.data import DigitsDataset
from lse_train.demo import figures
from lse_train.demo.evaluation import evaluate, nested, test_sets
from lse_train.demo.report import render_report
from lse_train.demo.settings import DemoSettings
from lse_train.demo.training import Progress, normalise, train_models, training_set

__all__ = ["FILES", "load_run", "run_demo"]

MODEL, RESULTS = "dec", "results.json"
FILES = (f"{MODEL}/model.safetensors", f"{MODEL}/config.json", "model.onnx", "report.html", RESULTS)
"""What a run writes, in the order it is put in place: results.json comes last and vouches for the rest."""


def run_demo(settings: DemoSettings, out: Path, progress: Progress, *, quick: bool = False) -> dict[str, Any]:
    """Train, adapt, measure, export and report; returns what results.json holds.

    Args:
        settings: what to do.
        out: output folder, made if absent; only the files named in `FILES` are replaced. `load_run` reads
            the DEC model back.
        progress: how to show that work goes on.
        quick: whether the settings were cut short, to be said on the page.

    Raises:
        LSEError: lse-export is not installed.
        OutputError: the folder cannot be written.
    """
    export = _exporter()
    started = time.perf_counter()
    with _staging(out) as partial, torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        results, pictures = _work(settings, partial, progress, export)
        results = {
            "seed": settings.seed,
            "quick": quick,
            "seconds": round(time.perf_counter() - started, 1),
            "settings": asdict(settings),
            "versions": _versions(),
            **results,
        }
        (partial / "report.html").write_text(render_report(results, pictures), encoding="utf-8")
        (partial / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        (out / MODEL).mkdir(exist_ok=True)
        for name in FILES:
            os.replace(partial / name, out / name)
    return results


def load_run(folder: Path) -> tuple[DemoSettings, AdaptedModel]:
    """What a finished run was told, and its DEC model in eval mode on the CPU.

    Raises:
        LSEError: no finished run, one of a version that kept no model, or damaged files.
    """
    try:
        told: dict[str, Any] = json.loads((folder / RESULTS).read_text(encoding="utf-8"))["settings"]
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
        settings = DemoSettings(**plain)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise LSEError(f"{folder} is no folder of a finished lse demo: {RESULTS}: {why}") from error
    return settings, load(folder / MODEL)


def _work(
    settings: DemoSettings, partial: Path, progress: Progress, export: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    device = settings.device
    tick = progress("data", 2)
    data = training_set(settings)
    tick()
    sets = test_sets(settings)
    tick()
    x, y = normalise(data.images).to(device), data.labels.to(device)

    models, logs = train_models(settings, x, y, progress)
    scores = {}
    for name, model in models.items():
        scores[name] = evaluate(model, sets, device, progress(f"measure {name}", len(sets)))

    dec = models["dec"]
    assert isinstance(dec, AdaptedModel)
    tests = {name: data.config.to_mapping() for name, data in sets.items()}
    save(dec, partial / MODEL, training={"made by": "lse demo", "data": {"name": "digits", "tests": tests}})
    tick = progress("export and verify", 3)
    onnx = _export(dec, sets["all"], settings, partial / "model.onnx", export, tick)
    tick = progress("pictures", 5)
    solver, movement, pictures = _look(dec, sets["all"], settings, tick)
    pictures["accuracy"] = figures.embedded(figures.accuracy_figure(scores))
    tick()
    results = {
        "methods": {name: nested(by_set) for name, by_set in scores.items()},
        "training": {name: asdict(log) for name, log in logs.items()},
        "solver": solver,
        "movement": movement,
        "onnx": onnx,
    }
    return results, pictures


def _export(
    dec: AdaptedModel,
    data: DigitsDataset,
    settings: DemoSettings,
    path: Path,
    export: Any,
    tick: Callable[[], None],
) -> dict[str, Any]:
    model = copy.deepcopy(dec).cpu().eval()
    inputs = normalise(data.images[: 2 * max(settings.export_batches)])
    report = export.export_onnx(model, inputs[:2], path)
    tick()
    # a difference is a result like any other: the page shows it, the run goes on
    checked = export.verify(path, model, inputs, batch_sizes=settings.export_batches, throw=False)
    tick()
    ratio = export.latency_ratio(path, model, normalise(data.images[:8]))
    tick()
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


def _look(
    dec: AdaptedModel, data: DigitsDataset, settings: DemoSettings, tick: Callable[[], None]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Solver residuals, how far the warps move, and the pictures of both."""
    shown = min(200, len(data))
    x = normalise(data.images[:shown]).to(settings.device)
    with torch.no_grad(), observe(dec) as record:
        dec.eval()(x)
    warp = record["image"].warp
    assert isinstance(warp, SeparableWarp)
    identity = SeparableWarp.identity(warp.batch, device=warp.device)
    pixels = warp_distance(warp, identity).sqrt().mean() * (settings.resolution - 1)
    tick()
    traces = {}
    canonicalizer = dec.canonicalizers["image"]
    for name in ("naive", "anderson", "broyden"):
        other = copy.deepcopy(canonicalizer)
        other.solver = registry().get("solver", name)()
        with torch.no_grad():
            traces[name] = other(x, steps=12).solution.residuals.cpu().numpy()
    tick()
    pictures = {
        "samples": figures.embedded(figures.samples_figure(settings), "png"),
        "canonical": figures.embedded(figures.canonical_figure(dec, settings, settings.device), "png"),
        "warps": figures.embedded(figures.warps_figure(warp[: min(60, shown)], data.scales[:60])),
        "residuals": figures.embedded(figures.residual_figure(traces, settings.solver_steps)),
    }
    tick()
    tick()
    solver = {
        "name": settings.solver,
        "steps": settings.solver_steps,
        "residuals": [float(v) for v in traces[settings.solver].mean(1)],
    }
    return solver, {"pixels": float(pixels), "images": min(60, shown)}, pictures


def _exporter() -> Any:
    """lse-export, which this package does not depend on."""
    try:
        import lse_export
    except ImportError as error:
        raise LSEError("the demo exports its model with lse-export: pip install 'lse-train[demo]'") from error
    return lse_export


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A hidden folder beside the results, gone when the block ends: an interrupted run leaves nothing."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _versions() -> dict[str, str]:
    names = ("lse-core", "lse-dec", "lse-export", "torch", "timm", "torchdeq", "onnx", "scikit-learn")
    found = {"python": platform.python_version()}
    for name in (*names, "onnxruntime", "onnxruntime-gpu"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
