"""Python: tensors, warps and settings that do not fit, given to the public functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from faults.fault import Fault, fault

import lse_core
import lse_dec
import lse_export
from lse_core.layouts import Tokens

X = torch.rand(2, 3, 8, 8)


def call(function: Callable[[], Any]) -> Callable[[Path], Any]:
    return lambda place: function()


def warp(batch: int = 2) -> Any:
    return lse_core.SeparableWarp.random(batch, generator=torch.Generator().manual_seed(0))


def small(**more: Any) -> Any:
    return timm.create_model("resnet10t", num_classes=2, channels=(4, 4, 4, 4), stem_width=4, **more)


def adapted(**more: Any) -> Any:
    return lse_dec.adapt(small(), "image", segments=3, projection=4, widths=[4], resolution=8, **more).eval()


def knots(*values: float) -> torch.Tensor:
    return torch.tensor([values])


FAULTS: list[Fault] = [
    *(
        fault(
            f"a random warp of {name} = {value!r}",
            call(lambda n=name, v=value: lse_core.SeparableWarp.random(2, **{n: v})),
            name,
        )
        for name, value in (
            ("ratio", float("inf")),
            ("ratio", float("nan")),
            ("ratio", 0.5),
            ("ratio", -1.0),
            ("ratio", "two"),
            ("segments", 0),
            ("segments", -3),
            ("segments", 2.5),
            ("distribution", "normal"),
        )
    ),
    *(
        fault(f"{kind} of {name}", call(lambda f=function, g=given: f(g, warp())), "tensor")
        for kind, function in (("scaling", lse_core.scale), ("unscaling", lse_core.unscale))
        for name, given in (
            ("a NumPy array", np.zeros((2, 3, 8, 8), np.float32)),
            ("a list", [[1.0]]),
            ("None", None),
            ("a number", 3.0),
        )
    ),
    *(
        fault(f"scaling {name}", call(lambda g=given: lse_core.scale(g, warp())), *words)
        for name, given, words in (
            ("a batch of another size", torch.rand(3, 3, 8, 8), ("3", "2")),
            ("a picture without a batch", torch.rand(3, 8, 8), ("shape",)),
            ("a tensor of five axes", torch.rand(2, 3, 4, 8, 8), ("shape",)),
            ("a map of no pixels", torch.rand(2, 3, 0, 8), ("shape",)),
        )
    ),
    fault("scaling by no warp", call(lambda: lse_core.scale(X, "warp")), "warp"),
    fault(
        "scaling tokens that make no map",
        call(lambda: lse_core.scale(torch.rand(2, 7, 5), warp(), Tokens((2, 2), 1))),
        "tokens",
    ),
    fault("a layout that does not exist", call(lambda: lse_core.scale(X, warp(), "nhcw")), "nhcw", "nhwc"),
    *(
        fault(f"a map whose knots are {name}", call(lambda a=x, b=y: lse_core.MonotoneMap(a, b)), *words)
        for name, x, y, words in (
            ("out of order", knots(0, 0.7, 0.3, 1), knots(0, 0.3, 0.7, 1), ("increase",)),
            ("the same twice", knots(0, 0.5, 0.5, 1), knots(0, 0.3, 0.7, 1), ("knots",)),
            ("not from 0 to 1", knots(0.1, 0.5, 1), knots(0, 0.5, 1), ("0",)),
            ("NaN", knots(0, float("nan"), 1), knots(0, 0.5, 1), ("increase",)),
            ("of two lengths", knots(0, 0.5, 1), knots(0, 1), ("(1, 3)", "(1, 2)")),
            ("whole numbers", torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), ("int64",)),
        )
    ),
    fault("maps of two batches composed", call(lambda: warp(2) @ warp(3)), "2", "3"),
    fault(
        "an error of probabilities of two shapes",
        call(lambda: lse_core.invariance_error(torch.rand(2, 3), torch.rand(3, 2))),
        "shape",
    ),
    fault(
        "an error of whole numbers",
        call(lambda: lse_core.invariance_error(torch.ones(2, 3).long(), torch.ones(2, 3).long())),
        "int64",
    ),
    *(
        fault(f"adapting {name}", call(lambda k=keywords: lse_dec.adapt(small(), **k)), *words)
        for name, keywords, words in (
            ("at a stage that does not exist", {"sites": "layer9"}, ("layer9", "layer")),
            ("at no stage", {"sites": []}, ("at least one",)),
            ("at one stage twice", {"sites": ["image", "image"]}, ("once",)),
            ("with a canonicalizer that does not exist", {"canonicalizer": "decc"}, ("decc",)),
            ("with a rule that does not exist", {"rule": "residul"}, ("residul",)),
            ("with a solver that does not exist", {"solver": "newton"}, ("newton",)),
            ("with a warp family that does not exist", {"warp": "afine"}, ("afine",)),
            ("in a mode that does not exist", {"mode": "covariant"}, ("covariant",)),
            ("with features that do not exist", {"feed": "labels"}, ("labels",)),
            ("with no steps", {"steps": 0}, ("steps",)),
            ("with steps that are a word", {"steps": "five"}, ("steps",)),
            ("with a setting that does not exist", {"segmnts": 3}, ("segmnts", "segments")),
            ("with a setting of the wrong type", {"segments": "three"}, ("segments",)),
            ("with a ratio out of range", {"ratio": 50.0}, ("ratio",)),
            ("with a gradient that does not exist", {"gradient": "magic"}, ("magic",)),
        )
    ),
    fault("adapting what is adapted", call(lambda: lse_dec.adapt(adapted())), "adapted already"),
    fault("adapting what is no model", call(lambda: lse_dec.adapt("resnet18")), "module"),
    fault("taking canonicalizers out of a plain model", call(lambda: lse_dec.unadapt(small())), "adapt"),
    *(
        fault(f"calling an adapted model with {name}", call(lambda g=given: adapted()(g)), *words)
        for name, given, words in (
            ("a picture without a batch", torch.rand(3, 32, 32), ("shape",)),
            ("pictures of one channel", torch.rand(2, 1, 32, 32), ("3",)),
            ("bytes", torch.zeros(2, 3, 32, 32, dtype=torch.uint8), ("uint8",)),
            ("an empty batch of no pixels", torch.rand(2, 3, 0, 32), ("shape",)),
        )
    ),
    fault(
        "calling an adapted model with a NumPy array",
        call(lambda: adapted()(np.zeros((2, 3, 32, 32)))),
        "tensor",
    ),
    fault("calling an adapted model with nothing", call(lambda: adapted()()), "got no features"),
    fault("Eq. 5 of a plain model", call(lambda: lse_dec.equivariance_loss(small(), X)), "adapt"),
    fault(
        "Eq. 5 without canonicalizers that learn",
        call(lambda: lse_dec.equivariance_loss(lse_dec.adapt(small(), "image", canonicalizer="identity"), X)),
        "parameters",
    ),
    fault(
        "Eq. 5 with steps upside down",
        call(lambda: lse_dec.equivariance_loss(adapted(), torch.rand(2, 3, 32, 32), steps=(6, 2))),
        "steps",
    ),
    fault("saving to a file", lambda place: lse_dec.save(adapted(), place / "run.yaml"), "run.yaml"),
    fault("loading a file", lambda place: lse_dec.load(place / "run.yaml"), "run.yaml"),
    fault("loading nothing", lambda place: lse_dec.load(place / "gone"), "gone"),
    fault(
        "loading into another model", lambda place: lse_dec.load(place / "model", small(in_chans=1)), "model"
    ),
    fault(
        "exporting a plain model",
        lambda place: lse_export.export_onnx(small().eval(), torch.rand(2, 3, 32, 32), place / "new.onnx"),
        "canonicalizer",
    ),
    fault(
        "exporting from a picture without a batch",
        lambda place: lse_export.export_onnx(adapted(), torch.rand(3, 32, 32), place / "new.onnx"),
        "shape",
    ),
    fault(
        "exporting onto a file that exists",
        lambda place: lse_export.export_onnx(
            adapted(), torch.rand(2, 3, 32, 32), place / "model.onnx", overwrite=False
        ),
        "exists",
    ),
    fault(
        "exporting to a precision that does not exist",
        lambda place: lse_export.export_onnx(
            adapted(), torch.rand(2, 3, 32, 32), place / "new.onnx", precision="float7"
        ),
        "float7",
    ),
    fault(
        "verifying a file that is missing",
        lambda place: lse_export.verify(place / "gone.onnx", adapted(), torch.rand(2, 3, 32, 32)),
        "gone.onnx",
    ),
    fault(
        "verifying with pictures of another size",
        lambda place: lse_export.verify(
            place / "model.onnx", lse_dec.load(place / "model"), torch.rand(2, 3, 64, 64)
        ),
        "32",
    ),
    fault(
        "checking for a target that does not exist",
        lambda place: lse_export.check(place / "model.onnx", target="tensorrt12"),
        "tensorrt12",
    ),
]
