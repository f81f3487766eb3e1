"""Time an adapted model and its exported file in every way this machine can run them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from lse_export.bench import bench

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from costs.variants import Variant, adapted, plain

WAYS = ("eager", "ort-cpu", "ort-cuda", "ort-tensorrt", "tensorrt")


def main() -> None:
    """Print a table for each batch, the plain model beside the adapted one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    name, size, rounds = ("test_vit", 64, 2) if options.tiny else ("vit_small_patch16_224", 224, 10)
    model = plain(name, size).to(options.device).eval()
    models = {"plain": model, "adapted": adapted(model)}
    if options.tiny:
        models = {"adapted": adapted(model, Variant("one step", 1, {"steps": 1}))}
    rows = []
    columns = ("way", "batch", "model", "milliseconds (quartiles)", "time : plain", "time : eager")
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for batch in (1,) if options.tiny else (1, 8):
        image = torch.randn(batch, 3, size, size, device=options.device)
        for row in bench(models, image, ways=WAYS, rounds=rounds, warmup=1 if options.tiny else 3):
            rows.append({"batch": batch, **row.as_dict()})
            low, high = row.spread
            cells = (
                f"{row.milliseconds:.2f} ({low:.2f} to {high:.2f}) | {row.ratio:.3f} | {row.to_first_way:.3f}"
                if not row.error
                else f"does not run here: {row.error} | |"
            )
            print(f"| {row.way} | {batch} | {row.model} | {cells} |", flush=True)
    (options.folder / "runtimes.json").write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
