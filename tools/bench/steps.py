"""Measure how many solver steps the demo's DEC needs when it is exported (`lse export onnx --steps auto`).

Run from the root, of a finished demo, or of one that is run for it:
    python tools/bench/steps.py --model runs/demo --out docs/results/steps.md
    python tools/bench/steps.py --quick
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

import torch
from answers import printed_to

from lse_core.card import card_of
from lse_core.errors import LSEError
from lse_data import DigitsDataset, build_digits
from lse_dec import AdaptedModel, load
from lse_export import choose_steps
from lse_export.unroll import with_steps
from lse_train.demo.figures import normalised
from lse_train.demo.run import RESULTS, run_demo

IMAGES = 64
TOLERANCES = (1e-2, 1e-3)


def main() -> None:
    """Measure how few steps do for test images, and write the page or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="what `lse demo --out FOLDER` left")
    parser.add_argument("--quick", action="store_true", help="run `lse demo --quick` for the model")
    parser.add_argument("--out", type=Path, help="page to write; else it is printed")
    options = parser.parse_args()
    if options.model is not None and options.quick:
        parser.error("--quick trains a model of its own; leave --model out")
    with printed_to(options.out):
        report(options)


def report(options: argparse.Namespace) -> None:
    """Print the page."""
    with tempfile.TemporaryDirectory() as place:
        folder = options.model or Path(place) / "demo"
        if options.model is None:
            run_demo(folder, quick=options.quick)
        try:
            results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
            model = load(folder)
        except (OSError, ValueError, LSEError) as error:
            sys.exit(f"error: {folder} is no folder of a finished lse demo: {error}")
    dec, settings, solver = results["methods"]["dec"], results["settings"], results["solver"]
    data = test_images(model)
    images = normalised(model, data.images[:IMAGES])
    choices = [choose_steps(model, images, tolerance=t) for t in TOLERANCES]
    flag = " --quick" if options.quick else " --model runs/demo" if options.model else ""
    print("# Solver steps for export\n")
    print("**Question.** How many solver steps does the demo's model need when it is exported?\n")
    print("| steps | largest residual | deviation | same answer | accuracy |\n|---|---|---|---|---|")
    for row in choices[0].rows:
        print(
            f"| {row.steps} | {row.residual:.2e} | {row.deviation:.2e} | {row.agreement:.1%} | "
            f"{accuracy(model, data, row.steps):.1%} |"
        )
    reference = choices[0].reference
    print(f"| {reference} | {choices[0].residual:.2e} | | | {accuracy(model, data, reference):.1%} |")
    print()
    for choice in choices:
        print(f"- `--steps auto --tolerance {choice.tolerance:g}`: {choice.summary()}")
    print(
        "\nThe residual is the root mean square of |f(z) - z| in log-slopes. The deviation is the largest "
        "difference of an output\nfrom that after the most steps, divided by the range of all outputs; "
        '"same answer" is the share of images with the\nsame most likely class as after the most steps. '
        f"Residual, deviation and same answer are of {IMAGES} test images, accuracy is\nof all {len(data)}, "
        "those at factor 1 among them."
    )
    if results["quick"]:
        print("\nThe quick model is hardly trained, so its numbers mean nothing.")
    print(
        f"\n## How it was measured\n\n`python tools/bench/steps.py{flag}`: the DEC of a finished `lse demo` "
        f"(accuracy {dec['accuracy']:.1%}, InvE {dec['invariance_error']:.3f}), seed {results['seed']}, "
        f"{settings['steps_aug']} + {settings['steps_more']} training steps, solver {solver['name']}. "
        f"2 cores, no GPU, Python {platform.python_version()}, torch {torch.__version__}."
    )


def test_images(model: AdaptedModel) -> DigitsDataset:
    """The test images over all sizes that the model's own checkpoint names."""
    told = card_of(model).training
    assert told is not None
    return build_digits(**{**told["data"].get("options", {}), **told["data"]["tests"]["all"]})


def accuracy(model: AdaptedModel, data: DigitsDataset, steps: int) -> float:
    """Share of right answers with so many solver steps."""
    x = normalised(model, data.images)
    with with_steps(model, steps), torch.no_grad():
        answers = torch.cat([model(part).argmax(-1) for part in x.split(200)])
    return float((answers == data.labels).float().mean())


if __name__ == "__main__":
    main()
