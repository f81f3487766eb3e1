"""How many solver steps the demo's DEC needs when it is exported: `lse export onnx --steps auto`'s table.

Run from the root: .venv/bin/python tools/bench/steps.py [--quick] > docs/results/steps.md
"""

from __future__ import annotations

import argparse
import platform

import torch

from lse_dec.data import DigitsConfig, load_digits_dataset
from lse_dec.demo.evaluation import test_sets
from lse_dec.demo.run import _train_all
from lse_dec.demo.settings import DemoSettings
from lse_dec.demo.training import normalise
from lse_export import choose_steps

IMAGES = 64
TOLERANCES = (1e-2, 1e-3)


def main() -> None:
    """Train the demo's models, measure every solver's steps on test images, print Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="the demo's --quick settings")
    quick = parser.parse_args().quick
    settings = DemoSettings().quick() if quick else DemoSettings()
    torch.manual_seed(settings.seed)
    data = load_digits_dataset(
        DigitsConfig(
            count=settings.train_images,
            scale=settings.train_scale,
            resolution=settings.resolution,
            seed=settings.seed,
            split_seed=settings.seed,
            split="train",
        )
    )
    models, _ = _train_all(settings, normalise(data.images), data.labels, lambda title, steps: lambda: None)
    model = models["dec"].eval()
    images = normalise(test_sets(settings)["all"].images[:IMAGES])
    choices = [choose_steps(model, images, tolerance=t) for t in TOLERANCES]
    flag = " --quick" if quick else ""
    print("# Solver steps for export\n")
    print(
        f"`python tools/bench/steps.py{flag}`: the demo's DEC (seed {settings.seed}, "
        f"`lse demo{flag}`'s training), {IMAGES} test images, solver {settings.solver}, against a solve of "
        f"{choices[0].reference} steps. 2 cores, no GPU, Python {platform.python_version()}, torch "
        f"{torch.__version__}. Deviation: largest difference of an output, of the range of all.\n"
    )
    print("| steps | largest residual | deviation | same answer |\n|---|---|---|---|")
    for row in choices[0].rows:
        print(f"| {row.steps} | {row.residual:.2e} | {row.deviation:.2e} | {row.agreement:.1%} |")
    print()
    for choice in choices:
        print(f"- `--steps auto --tolerance {choice.tolerance:g}`: {choice.summary()}")


if __name__ == "__main__":
    main()
