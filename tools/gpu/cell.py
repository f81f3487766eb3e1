"""Train two cells of table 2 at the size for a GPU, only shorter; print and keep their numbers."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import redirect_stdout
from pathlib import Path
from sys import stderr
from typing import Any

from lse_train.recipes import run_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "table2.yaml"
SETTINGS: dict[str, Any] = {
    "seeds": 1,
    "jobs": 1,
    "axes.method": {
        "aug": {"label": "Aug continued", "preset": "aug"},
        "dec": {"label": "DEC at the first stage, task and Eq. 5", "preset": "dec_absolute_both",
                "adapt.sites": ["stage:0"]},
    },
    "axes.model": {"vit": {"label": "ViT-Ti", "model.kwargs.name": "vit_tiny_patch16_224"}},
    "run.steps": 150,
    "start.settings": {"steps": 250, "optim.lr": 5.0e-4},
    "run.data.train.count": 3000,
    "run.data.options.count": 100,
}  # fmt: skip
TINY: dict[str, Any] = {
    "axes.method": {"dec": SETTINGS["axes.method"]["dec"]},
    "axes.model": {"resnet": {"label": "small ResNet", "model.kwargs.name": "small_resnet"}},
    "run.steps": 1,
    "start.settings": {"steps": 1},
    "run.batch_size": 4,
    "run.data.train.count": 4,
    "run.data.options.count": 2,
    "run.data.options.resolution": 32,
    "run.model.kwargs.resolution": 32,
}


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    changed = {**SETTINGS, **(TINY if options.tiny else {}), "run.device": options.device}
    profile = "cpu" if options.device == "cpu" else "gpu"
    began = time.perf_counter()
    with redirect_stdout(stderr):
        said = run_recipe(RECIPE, {"profile": profile, "set": changed, "out": options.folder / "runs"})
    print("\n".join(said["table"]))
    print(f"\n{time.perf_counter() - began:.0f} s, with the pictures, the start and the measurements.")
    results = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(options.folder.glob("runs/**/result.json"))
    }
    (options.folder / "cells.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
