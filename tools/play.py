"""The playground of the documentation: makes its models and pictures, tries it in Chromium, records it.

python tools/play.py pair runs/demo     # docs/play: the demo's models (of `make demo`) and pictures, small
python tools/play.py try                # numbers of the page in Chromium, and docs/tutorials/play.webp
python tools/play.py try runs/play      # the same of any folder that lse play wrote, without a recording
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import lse_export
from lse_core import attach, card_of
from lse_data import build_digits
from lse_dec import load

ROOT = Path(__file__).parents[1]
PLAY = ROOT / "docs" / "play"
MODELS = {"plain": "cells/aug_continued/seed0", "adapted": "cells/dec/seed0"}
"""Folders of the demo: the model trained with the augmentation alone, and the one with a canonicalizer."""

COUNT = 6  # pictures
LARGE = 4096  # weights in a tensor from which on they are kept as bytes


def pair(demo: Path) -> None:
    """Write the demo's two models, and the first test pictures that both of them read right."""
    models = {name: load(demo / folder).eval() for name, folder in MODELS.items()}
    PLAY.mkdir(exist_ok=True)
    for name, model in models.items():
        attach(model, class_names=[f"{number:03d}" for number in range(1000)])
        path = PLAY / f"{name}.onnx"
        lse_export.export_onnx(
            model,
            torch.zeros(2, 1, 96, 96),
            path,
            with_warps=name == "adapted",
            allow_plain=True,
            overwrite=True,
        )
        before = path.stat().st_size
        proto = packed(onnx.load(path))
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, {before / 1e3:.0f} kB before packing")
    data = build_digits(
        resolution=96, count=60, variants=1, split="test", scale=(1.0, 1.0), seed=0, split_seed=0
    )
    prepared = card_of(models["plain"]).preprocess.normalise(data.images / 255)
    with torch.no_grad():
        right = torch.stack([model(prepared).argmax(1) == data.labels for model in models.values()]).all(0)
    for number in right.nonzero()[:COUNT, 0].tolist():
        stem = PLAY / f"{int(data.labels[number]):03d}"
        Image.fromarray(data.images[number, 0].numpy()).save(stem.with_suffix(".png"))
        mask = np.zeros((96, 96), dtype=np.uint8)
        for digit, (left, top, right_, bottom) in enumerate(data.boxes[number].mul(96).tolist()):
            mask[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right_))] = digit + 1
        Image.fromarray(mask).save(stem.with_suffix(".mask.png"))
    print(f"both models read {int(right.sum())} of {len(right)} pictures right; the first {COUNT} are kept")


def packed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with large weights as bytes and a factor for each output channel, for a small file.

    ONNX Runtime multiplies them once, when it loads the file.
    """
    graph = proto.graph
    nodes = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < LARGE:
            continue
        axes = tuple(range(1, values.ndim))
        factor = np.abs(values).max(axes, keepdims=True) / 127 + np.float32(1e-12)
        levels = np.rint(values / factor).astype(np.int8)
        graph.initializer.remove(tensor)
        names = [f"{tensor.name}.{part}" for part in ("levels", "factor", "float")]
        graph.initializer.extend(map(numpy_helper.from_array, (levels, factor.astype(np.float32)), names))
        nodes += [
            helper.make_node("Cast", [names[0]], [names[2]], to=TensorProto.FLOAT, name=f"{names[2]}/Cast"),
            helper.make_node("Mul", [names[2], names[1]], [tensor.name], name=f"{names[2]}/Mul"),
        ]
    ordered = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(ordered)
    return proto


if __name__ == "__main__":
    pair(Path(sys.argv[2]))
