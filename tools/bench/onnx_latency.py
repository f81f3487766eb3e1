"""Time the adapted vit_tiny in ONNX Runtime and in eager torch, and the share of its canonicalizers.

Run from the root: python tools/bench/onnx_latency.py --out docs/results/onnx_latency.md
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path
from statistics import median, quantiles

import onnxruntime
import timm
import torch
from answers import printed_to
from torch import nn

from lse_dec import adapt
from lse_export import export_onnx, verify
from lse_export.bench import interleaved
from lse_export.runtime import open_session, run
from lse_export.unroll import evaluating

BATCHES = (1, 8)
ROUNDS = 15


def spread(ratios: list[float]) -> str:
    """Median and quartiles."""
    low, _, high = quantiles(ratios, n=4)
    return f"{median(ratios):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure in turns, and write the page or print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="page to write; else it is printed")
    with printed_to(parser.parse_args().out):
        report()


def report() -> None:
    """Print the page."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain = timm.create_model("vit_tiny_patch16_224").eval()
    adapted = adapt(timm.create_model("vit_tiny_patch16_224")).eval()
    for canonicalizer in adapted.canonicalizers.values():
        nn.init.normal_(canonicalizer.update.head.weight, std=0.1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("plain", "adapted")}
        image = torch.randn(2, 3, 224, 224)
        export_onnx(plain, image, files["plain"], allow_plain=True)
        report = export_onnx(adapted, image, files["adapted"])
        checked = verify(files["adapted"], adapted, image, batch_sizes=(1, 2), throw=False)
        sessions = {name: open_session(file, threads=1) for name, file in files.items()}
        for batch in BATCHES:
            x = torch.randn(batch, 3, 224, 224)
            calls = [
                lambda x=x: run(sessions["adapted"], x),
                lambda x=x: run(sessions["plain"], x),
                lambda x=x: adapted(x),
            ]
            with evaluating(adapted):
                ours, base, eager = interleaved(calls, ROUNDS, 2)
            against = [a / b for a, b in zip(ours, eager, strict=True)]
            share = [(a - b) / a for a, b in zip(ours, base, strict=True)]
            rows.append((batch, spread(against), spread(share)))
    print("# ONNX Runtime on a CPU\n")
    print(
        "**Question.** Is an adapted ViT faster in ONNX Runtime than in eager PyTorch, and which share of "
        "its time "
        "do the\ncanonicalizers take?\n"
    )
    print(
        "| batch | time in ONNX Runtime : in eager PyTorch, both adapted "
        "| canonicalizers' share of the exported graph's time |"
    )
    print("|---|---|---|")
    for batch, against, share in rows:
        print(f"| {batch} | {against} | {share} |")
    print(
        "\n## How it was measured\n\n"
        "`python tools/bench/onnx_latency.py`: vit_tiny_patch16_224, canonicalizers at `image` and "
        "`blocks.0`, "
        f"Anderson, 5 steps, one thread, {ROUNDS} rounds in which the models took turns; medians with "
        "quartiles. "
        f"2 cores, no GPU, Python {platform.python_version()}, torch {torch.__version__}, onnxruntime "
        f"{onnxruntime.__version__}, seed 0.\n"
    )
    print(
        f"The exported graph has {report.nodes} nodes, of which {report.canonicalizer_nodes} belong to "
        f"canonicalizers ({report.nodes_per_step:g} for each solver step). Verified: "
        f"{checked.summary().split(': ', 1)[1]}."
    )


if __name__ == "__main__":
    main()
