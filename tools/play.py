"""The playground of the documentation: makes its models and pictures, tries it in Chromium, records it.

python tools/play.py pair runs/demo    # tools/site/play: the models of `make demo` and pictures, small
python tools/play.py try               # numbers of that page in Chromium, and docs/tutorials/play.webp
python tools/play.py try runs/play     # the numbers alone, of any folder that lse play wrote
"""

from __future__ import annotations

import io
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

import lse_export
from lse_core import attach, card_of
from lse_core.commands.common import print_table
from lse_data import build_digits
from lse_dec import load
from lse_measure.play import find_runtime, serving, write_playground

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from chromium import Page, chromium  # noqa: E402

PLAY = ROOT / "tools" / "site" / "play"
RECORDING = ROOT / "docs" / "tutorials" / "play.webp"
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


TRIED = """(async () => {
  const { playground } = lse, { stage } = playground, rows = [];
  const settled = async () => {
    stage.tell();
    do await new Promise(requestAnimationFrame); while (playground.busy);
  };
  const top = (values) => values.indexOf(Math.max(...values));
  const tried = async (what, change) => {
    stage.reset();
    change();
    await settled();
    rows.push({ what, models: lse.answers.map(({ probabilities: now }, k) => {
      const { probabilities: before } = lse.firsts[k];
      const moved = now.map((share, i) => share - before[i]);
      return [top(now) === top(before), moved.reduce((sum, m) => sum + m * m, 0)];
    }) });
  };
  for (let k = 0; k < playground.told.pictures.length; k += 1) {
    await playground.open(k);
    for (const axis of ["x", "y"])
      for (const i of [1, 2, 3])
        for (const by of [-0.15, 0.15])
          await tried("one line by 0.15 of the side", () => stage.move(axis, i, i / 4 + by));
    const sizes = [0.5, 0.7, 1.4, 2];
    for (const size of sizes) {
      for (let i = 0; i < stage.objects.length; i += 1)
        await tried("one object to 0.5, 0.7, 1.4 or 2 times", () => stage.resize(i, size));
      if (stage.objects.length > 1)
        await tried("all objects to the same", () => stage.objects.forEach((_, i) => stage.resize(i, size)));
    }
  }
  return rows;
})()"""


def opened(page: Page, address: str, width: int, height: int) -> None:
    """Show the page and wait until it answers."""
    page.show(address, width, height)
    page.wait("globalThis.lse?.ready || globalThis.lse?.error")
    if (error := page.run("lse.error")) is not None:
        raise SystemExit(f"error: {error}")


def side(page: Page) -> tuple[float, float, float]:
    """Left, top and width of the picture on the page."""
    script = "document.querySelector('.stage .figure').getBoundingClientRect()"
    left, top, width = page.run(f"(({{left, top, width}}) => [left, top, width])({script})")
    return left, top, width


def rate(page: Page, seconds: float = 5.0) -> None:
    """Drag in circles and print how often the page answered."""
    left, top, width = side(page)
    began, start = time.monotonic(), page.run("[lse.updates, performance.now()]")

    def circle() -> Any:
        while (t := time.monotonic() - began) < seconds:
            yield left + width * (0.5 + 0.1 * math.sin(3 * t)), top + width * (0.5 + 0.1 * math.cos(3 * t))

    page.drag(circle())
    end = page.run("[lse.updates, performance.now()]")
    updates, took = end[0] - start[0], (end[1] - start[1]) / 1000
    speed = page.run("document.getElementById('speed').textContent")
    print(f"while dragged: {updates / took:.0f} updates a second ({updates} in {took:.1f} s)")
    print(f"the page itself says: {speed}")


def tried(page: Page) -> None:
    """Print how often each model's first answer stayed, and how far its answers moved."""
    rows = page.run(TRIED)
    names = page.run("lse.playground.told.models.map(({ name }) => name)")
    table = []
    for what in dict.fromkeys(row["what"] for row in rows):
        found = np.array([row["models"] for row in rows if row["what"] == what], dtype=float)
        for name, (same, moved) in zip(names, found.transpose(1, 2, 0), strict=True):
            changed = f"{int((1 - same).sum())} of {len(found)}"
            table.append((what, name, changed, f"{moved.mean():.2f}", f"{moved.max():.2f}"))
    print_table(("change", "model", "first answer changed", "mean InvE", "largest InvE"), table)


def record(page: Page, path: Path) -> None:
    """Drag a line, then resize a digit, and keep what the window showed as an animated picture."""
    frames: list[Image.Image] = []
    at = (0.0, 0.0)

    def keep() -> None:
        page.run("new Promise(requestAnimationFrame)")
        page.wait("!lse.playground.busy")
        frame = Image.open(io.BytesIO(page.picture())).convert("RGB")
        draw = ImageDraw.Draw(frame)
        draw.ellipse([at[0] - 11, at[1] - 11, at[0] + 11, at[1] + 11], outline="#d1495b", width=4)
        frames.append(frame.resize((frame.width * 5 // 8, frame.height * 5 // 8), Image.Resampling.LANCZOS))

    def dragged(selector: str, x: float, y: float, steps: int = 12) -> None:
        nonlocal at
        start = page.middle(selector)
        _, _, width = side(page)
        points = []
        for k in range(2 * steps + 1):
            there = 0.5 - 0.5 * math.cos(math.pi * k / steps)
            points.append((start[0] + x * width * there, start[1] + y * width * there))
        places = iter(points)

        def each() -> None:
            nonlocal at
            at = next(places)
            keep()

        page.drag(points, each)

    page.run("document.querySelector('[aria-label=\"922.png\"]').click()")
    page.wait("lse.ready")
    dragged('[aria-label="Vertical line 1"]', 0.16, 0.0)
    dragged('[aria-label="Horizontal line 3"]', 0.0, 0.12)
    page.run("document.querySelector('[name=mode][value=object]').click()")
    dragged('[aria-label="Size of object 1"]', 0.09, 0.09)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80, loop=0, quality=60, method=6)
    print(f"{path.relative_to(ROOT)}: {len(frames)} frames of {frames[0].width} x {frames[0].height} pixels, "
          f"{path.stat().st_size / 1e3:.0f} kB")  # fmt: skip


def trial(folder: Path | None) -> None:
    """Try a playground, or the documentation's, which is recorded too."""
    with tempfile.TemporaryDirectory() as made:
        if folder is None:
            runtime = find_runtime(ROOT / "tests" / "browser")
            out = Path(made) / "page"
            write_playground([PLAY / f"{name}.onnx" for name in MODELS], [PLAY], out, runtime=runtime)
        with serving(folder or out) as address, chromium() as page:
            opened(page, address, 1280, 760)
            print(f"{page.run('navigator.userAgent')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
            rate(page)
            tried(page)
            if folder is None:
                opened(page, address, 1280, 760)
                record(page, RECORDING)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pair", demo]:
            pair(Path(demo))
        case ["try", *folder] if len(folder) < 2:
            trial(Path(folder[0]) if folder else None)
        case _:
            raise SystemExit(__doc__)
