"""results.json and report.html: the run in numbers and in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lse_core.html import rendered
from lse_train.demo.figures import LABELS

__all__ = ["render_report", "verdict", "verification"]


def verdict(methods: Mapping[str, Mapping[str, Any]]) -> tuple[bool, str]:
    """Whether DEC beat Aug with the same budget on both figures, and the sentence that says so."""
    dec, aug = methods["dec"], methods["aug_continued"]
    points = 100 * (dec["accuracy"] - aug["accuracy"])
    ratio = dec["invariance_error"] / max(aug["invariance_error"], 1e-12)
    won = points > 0 and ratio < 1
    numbers = (
        f"its accuracy is {100 * dec['accuracy']:.1f}% against {100 * aug['accuracy']:.1f}% ({points:+.1f} "
        f"points), and its InvE is {dec['invariance_error']:.3f} against {aug['invariance_error']:.3f} "
        f"({ratio:.2f} times as much)"
    )
    if won:
        return True, f"DEC beats Aug with the same budget over all sizes, most of them never seen: {numbers}."
    if points > 0 or ratio < 1:
        return (
            False,
            f"With this seed DEC is better than Aug in one figure and worse in the other: {numbers}.",
        )
    return False, f"With this seed DEC does not beat Aug with the same budget: {numbers}."


def verification(onnx: Mapping[str, Any]) -> str:
    """What ONNX Runtime's answers say of the exported file, in a sentence."""
    difference = f"{onnx['max_abs_diff']:.2g}, {onnx['relative_diff']:.1g} of the output's range"
    if onnx["verified"]:
        return f"ONNX Runtime gives the same answers as torch; the largest difference is {difference}."
    return (
        "The answers of ONNX Runtime are NOT equal to those of torch; the largest difference is "
        f"{difference}. Where the update does not contract yet, the solver amplifies rounding."
    )


def render_report(results: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """The page, self-contained: `results` as in results.json, `figures` as data URIs by name."""
    methods = results["methods"]
    best = max(methods, key=lambda name: methods[name]["accuracy"])
    shown = [round(100 * m["accuracy"], 1) for m in methods.values()]
    rows = [
        {
            "label": LABELS[name],
            "accuracy": f"{100 * m['accuracy']:.1f}",
            "inve": f"{m['invariance_error']:.3f}",
            "by_scale": [f"{100 * v:.1f}" for v in m["accuracy_by_scale"].values()],
            "best": name == best and shown.count(max(shown)) == 1,
        }
        for name, m in methods.items()
    ]
    training = [
        {
            "label": LABELS[name],
            "steps": log["steps"],
            "loss": f"{log['loss']:.3f}",
            "equivariance": " to ".join(f"{v:.2f}" for v in log["equivariance"])
            if log["equivariance"]
            else "there is no canonicalizer",
        }
        for name, log in results["training"].items()
    ]
    won, sentence = verdict(methods)
    solver, settings = results["solver"], results["settings"]
    first, last = solver["residuals"][0], solver["residuals"][solver["steps"] - 1]
    return rendered(
        "lse_train.demo",
        "report.html.j2",
        won=won,
        verdict=sentence,
        rows=rows,
        training=training,
        figures=figures,
        brackets=list(methods[best]["accuracy_by_scale"]),
        seed=results["seed"],
        quick=results["quick"],
        train_scale=_range(settings["train_scale"]),
        test_scale=_range(settings["test_scale"]),
        test_bases=settings["test_bases"],
        test_images=settings["test_bases"] * settings["variants"],
        minutes=f"{results['seconds'] / 60:.1f}",
        warp_count=results["movement"]["images"],
        movement=f"{results['movement']['pixels']:.1f}",
        residual_note=(
            "The residual is the root mean square change of the warp's log-slopes that one more update would "
            "make; the lines are medians over test images, the bands hold 80% of them. "
            f"With {solver['name']} its mean is {first:.3f} at the first step and {last:.3f} at step "
            f"{solver['steps']}. Eq. 5 trains the update to contract, but nothing forces it to."
        ),
        solver=solver,
        onnx=results["onnx"],
        verification=verification(results["onnx"]),
        versions=results["versions"],
    )


def _range(pair: Any) -> str:
    return f"[{pair[0]:g}, {pair[1]:g}]"
