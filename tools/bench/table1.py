"""Make Table 1 with small models on a CPU: mIoU, EquE and deviation over scales, on generated objects.

    python tools/bench/table1.py --work runs/table1 --seeds 0 1 --out docs/results/table1.md

As in section 5.1 of the paper, Aug is trained first, and all methods, Aug too, go on from its weights for the
same number of steps; base is trained without augmentation for as many steps in all. A finished run is not
repeated, so the script may be stopped and started again; runs that are missing are left out of the page.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from answers import write_page

from lse_data.objects import DESCRIPTION, ObjectsConfig, write_objects
from lse_seg.running import load_config, make_runner, set_data

METHODS = ("base", "aug", "augl", "canon", "dec")
MODELS = ("segformer", "swin_uper", "vit_dpt")
FIRST = "first"  # Aug's weights from which the others go on


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, and write the page or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the data and the cells")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["segformer"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=400, help="steps of Aug")
    parser.add_argument("--more", type=int, default=200, help="steps of every method from there")
    parser.add_argument("--train", type=int, default=800, help="training images")
    parser.add_argument("--test", type=int, default=30, help="base images of the test set, each at 5 factors")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--page", action="store_true", help="run nothing: only write what is there")
    parser.add_argument("--out", type=Path, help="file to write; else the page is printed")
    options = parser.parse_args(arguments)
    cells = [(m, s, k) for s in options.seeds for m in options.models for k in options.methods]
    if not options.page:
        prepare(options)
        for model, seed, method in cells:
            run(options, model, method, seed)
    page = report(options, {cell: found for cell in cells if (found := read(options, *cell)) is not None})
    if options.out is None:
        print(page)
    else:
        write_page(options.out, page)
        print(f"written to {options.out}")


def prepare(options: argparse.Namespace) -> None:
    """Make the objects, once."""
    data = options.work / "data"
    if not (data / DESCRIPTION).is_file():
        wanted = ObjectsConfig(
            train=options.train, test=options.test, val=0, size=options.size, families=("shapes",)
        )
        write_objects(wanted, data)


def place(options: argparse.Namespace, model: str, method: str, seed: int) -> Path:
    """The folder of a cell."""
    return Path(options.work) / f"{model}-{options.steps}-{options.more}" / f"seed{seed}" / method


def read(options: argparse.Namespace, model: str, seed: int, method: str) -> dict[str, Any] | None:
    """A cell's numbers, or None where it is missing."""
    path = place(options, model, method, seed) / "cell.json"
    return json.loads(path.read_text()) if path.is_file() else None


def run(options: argparse.Namespace, model: str, method: str, seed: int) -> None:
    """Train and test one cell, unless it is done; Aug's first part comes before it where it is missing."""
    folder = place(options, model, method, seed)
    if (folder / "cell.json").is_file():
        return
    began = time.perf_counter()
    if method == "base":
        train(options, f"{model}_base", folder, seed, options.steps + options.more)
    else:
        first = place(options, model, FIRST, seed)
        weights = first / f"iter_{options.steps}.pth"
        if not weights.is_file():
            train(options, f"{model}_aug", first, seed, options.steps)
        train(options, f"{model}_{method}", folder, seed, options.more, weights)
    found = json.loads((folder / "metrics.json").read_text())
    found["seconds"] = time.perf_counter() - began
    (folder / "cell.json").write_text(json.dumps(found, indent=2))
    print(model, method, seed, json.dumps(found), flush=True)


def train(
    options: argparse.Namespace, name: str, folder: Path, seed: int, steps: int, weights: Path | None = None
) -> None:
    """Train a config for `steps` and test it; the numbers go to metrics.json."""
    torch.manual_seed(seed)
    config = load_config(name)
    set_data(config, options.work / "data")
    config.experiment_name = f"{name}-{seed}-{time.time_ns()}"
    config.log_level = "WARNING"
    config.randomness = {"seed": seed}
    config.train_cfg.max_iters = config.train_cfg.val_interval = steps
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.default_hooks.checkpoint.interval = steps
    config.default_hooks.logger.interval = 50
    # going on from trained weights: a tenth of the rate, but not for canonicalizers, which are new
    if weights is not None:
        config.load_from = str(weights)
        config.optim_wrapper.optimizer.lr *= 0.1
        config.optim_wrapper.paramwise_cfg.custom_keys = {
            "canonicalizer": {"decay_mult": 0.0, "lr_mult": 10.0}
        }
    config.param_scheduler[0].end = config.param_scheduler[1].begin = max(1, min(50, steps // 4))
    config.param_scheduler[1].end = steps
    runner = make_runner(config, folder)
    runner.train()
    found = {key: float(value) for key, value in runner.test().items()}
    logged = runner.message_hub.log_scalars
    moved = [v.mean(50) for k, v in logged.items() if k.endswith(".displacement")]
    found["displacement"] = max(moved, default=0.0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(found, indent=2))


COLUMNS = {
    "mIoU, %": "scale/mIoU",
    "mean over factors, %": "scale/mIoU_mean",
    "deviation over factors": "scale/mIoU_std",
    "deviation of a base image": "scale/base_std",
    "EquE, 1e-3": "consistency/EquE",
    "warps move, % of the side": "displacement",
}
FACTORS = {f"factor {f}": f"scale/mIoU_{f}" for f in ("0.5", "0.7", "1", "1.4", "2")}
FACTOR = {"consistency/EquE": 1e3, "displacement": 100.0}


def report(options: argparse.Namespace, cells: Mapping[tuple[str, int, str], Mapping[str, float]]) -> str:
    """The page: a table a model, mean and values of the seeds."""
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "mmsegmentation", "mmengine", "lse-seg")
    )
    seeds = " ".join(map(str, options.seeds))
    lines = [
        "# Table 1: segmentation of scaled objects, small models on a CPU",
        "",
        "**Question.** Does a DEC make segmentation more consistent when single objects change their size, "
        "and "
        "what does it do",
        "to mIoU?",
        "",
    ]
    for model in options.models:
        lines += [f"## {model}", ""]
        for columns in (COLUMNS, FACTORS):
            lines += [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
            for method in options.methods:
                found = [
                    cells[model, seed, method] for seed in options.seeds if (model, seed, method) in cells
                ]
                if found:
                    shown = [
                        spread([c[key] * FACTOR.get(key, 1.0) for c in found]) for key in columns.values()
                    ]
                    lines.append(f"| {method} | {' | '.join(shown)} |")
            lines.append("")
    lines += [
        *EXPLAINED,
        "",
        "## How it was measured",
        "",
        f"    python tools/bench/table1.py --work runs/table1 --models {' '.join(options.models)} "
        f"--seeds {seeds} --steps {options.steps} --more {options.more} --train {options.train} "
        f"--test {options.test} --size {options.size}",
        "",
        f"Python {platform.python_version()}, {versions}; 2 cores, no GPU, one thread. Images of "
        f"{options.size} "
        "px show two textured shapes (6 classes and the background). Training resizes them by factors of "
        "0.7 to "
        "1.4; a test image has one object at factor 0.5, 0.7, 1, 1.4 or 2 and holds the rest. Aug is trained "
        f"for {options.steps} steps of 16 images, and every other method goes on from it for {options.more} "
        f"steps, as Aug does; base is trained for {options.steps + options.more} steps without augmentation.",
        "",
    ]
    return "\n".join(lines)


EXPLAINED = [
    'Each number is the mean over seeds, with those of the seeds in brackets. "Mean over factors" and '
    '"deviation over',
    'factors" are those of the mIoU at the five factors of the second table, in points; "deviation of a '
    'base image" is '
    "the",
    "deviation over the factors of one image, averaged. EquE (Eq. 23) is averaged over the elements of the "
    "predicted",
    "probabilities, for separable warps with slopes within [1/2, 2].",
]


def spread(values: Sequence[float]) -> str:
    """Mean, and the values in brackets."""
    return f"{statistics.mean(values):.2f} ({', '.join(f'{v:.2f}' for v in values)})"


if __name__ == "__main__":
    main()
