"""Measure how many solver steps the demo's DEC needs when it is exported (`lse export onnx --steps auto`).

Run from the root, of a finished demo's model, or of one trained for it:
    python tools/bench/steps.py --model runs/demo > docs/results/steps.md
    python tools/bench/steps.py --quick
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from lse_dec.adaptation import AdaptedModel
from lse_export import choose_steps
from lse_export.unroll import with_steps
from lse_train.data import DigitsDataset
from lse_train.demo.evaluation import predict, test_sets
from lse_train.demo.run import RESULTS, load_run
from lse_train.demo.settings import DemoSettings
from lse_train.demo.training import normalise, train_models, training_set

IMAGES = 64
TOLERANCES = (1e-2, 1e-3)


def main() -> None:
    """Measure how few steps do for test images, print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="what `lse demo --out FOLDER` left")
    parser.add_argument("--quick", action="store_true", help="train with the demo's --quick settings")
    options = parser.parse_args()
    if options.model is not None and options.quick:
        parser.error("--quick trains a model of its own; leave --model out")
    flag = " --quick" if options.quick else ""
    if options.model is None:
        settings = DemoSettings().quick() if options.quick else DemoSettings()
        model = trained(settings)
        origin = f"`python tools/bench/steps.py{flag}`: the DEC that `lse demo{flag}` trains"
    else:
        settings, model = load_run(options.model)
        results = json.loads((options.model / RESULTS).read_text(encoding="utf-8"))
        dec = results["methods"]["dec"]
        origin = (
            f"`python tools/bench/steps.py --model runs/demo`: the DEC of a finished `lse demo` "
            f"(accuracy {dec['accuracy']:.1%}, InvE {dec['invariance_error']:.3f})"
        )
        flag = " --quick" if results["quick"] else ""
    data = test_sets(settings)["all"]
    images = normalise(data.images[:IMAGES])
    choices = [choose_steps(model, images, tolerance=t) for t in TOLERANCES]
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
        'difference of an output\nfrom that after the most steps, divided by the range of all outputs; "same '
        'answer" is the share of images with the\nsame most likely class as after the most steps. Residual, '
        f"deviation and same answer are of {IMAGES} test images, accuracy is\nof all {len(data)}, those at "
        "factor 1 among them."
    )
    if flag:
        print("\nThe quick model is hardly trained, so its numbers mean nothing.")
    print(
        f"\n## How it was measured\n\n{origin}, seed {settings.seed}, {settings.steps_aug} + "
        f"{settings.steps_more} training steps, solver {settings.solver}. 2 cores, no GPU, Python "
        f"{platform.python_version()}, torch {torch.__version__}."
    )


def accuracy(model: AdaptedModel, data: DigitsDataset, steps: int) -> float:
    """Share of right answers with so many solver steps."""
    with with_steps(model, steps):
        answers = predict(model, normalise(data.images), "cpu").argmax(-1)
    return float((answers == data.labels).float().mean())


def trained(settings: DemoSettings) -> AdaptedModel:
    """The DEC model that the demo trains with these settings."""
    torch.manual_seed(settings.seed)
    data = training_set(settings)
    models, _ = train_models(settings, normalise(data.images), data.labels, lambda title, steps: lambda: None)
    model = models["dec"]
    assert isinstance(model, AdaptedModel)
    return model.eval()


if __name__ == "__main__":
    main()
