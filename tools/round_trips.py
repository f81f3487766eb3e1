"""Measure how much of a picture is lost when it is warped and warped back.

    python tools/round_trips.py --out docs/results/round_trips.md

On the two photographs bundled with scikit-learn, at 224 x 224: S^-1(S(I)) for random warps of the
authors' distribution, as `SeparableWarp` (exact inverse), as `GridWarp` inverted axis by axis as the
paper does, and as `GridWarp` refined by Newton's method where the grid does not fold.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from answers import write_page

from lse_core import GridWarp, SeparableWarp, unscale
from lse_core.pointwise import PointwiseWarp

SIZE = 224
PICTURES = ("china.jpg", "flower.jpg")
STRENGTHS = (0.1, 0.25, 1.0)
NODES = (4, 8)  # grid points a side
Warp = SeparableWarp | PointwiseWarp


def photograph(name: str) -> Tensor:
    """A square of the picture as (1, 3, SIZE, SIZE) within [0, 1], float64."""
    picture = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1).unsqueeze(0).double() / 255
    side = min(picture.shape[2:])
    return F.interpolate(picture[..., :side, :side], size=(SIZE, SIZE), mode="area")


def displacement(forth: Warp, back: Warp) -> Tensor:
    """How far l(l^-1(p)) is from p at every pixel, (B, pixels), in pixels: no picture, no interpolation."""
    u = torch.linspace(0, 1, SIZE, dtype=torch.float64)
    p = torch.stack(torch.meshgrid(u, u, indexing="xy"), dim=-1).view(-1, 2)
    return (forth(back(p)) - p).norm(dim=-1) * (SIZE - 1)


def cells(forth: Warp, back: Warp, pictures: Tensor) -> str:
    """Columns of one row: displacement, and root mean square of the pictures' round trip."""
    off = displacement(forth, back)
    rms = []
    for picture in pictures:
        there = unscale(picture.expand(forth.batch, -1, -1, -1), back)
        again = unscale(there, forth)
        rms.append(f"{float((again - picture).square().mean().sqrt()):.4f}")
    return f"{float(off.mean()):.4f} | {float(off.max()):.3f} | " + " | ".join(rms)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--warps", type=int, default=20, help="random warps for each line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pictures = torch.stack([photograph(name) for name in PICTURES])
    text = [
        "# Round trips",
        "",
        "**Question.** How much of a picture is lost when it is warped and warped back, by the exact "
        "separable "
        "group and by the",
        "paper's coupled grids?",
        "",
        "| nodes | strength | warp | off by, mean, px | off by, max, px | "
        f"{' | '.join(f'{p}, RMS' for p in PICTURES)} | warps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(text[-2:]))
    for nodes in NODES:
        for strength in STRENGTHS:
            generator = torch.Generator().manual_seed(args.seed)
            separable = SeparableWarp.random(
                args.warps,
                nodes - 1,
                distribution="authors",
                strength=strength,
                generator=generator,
                dtype=torch.float64,
            )
            grid = GridWarp.random(args.warps, nodes, strength, generator=generator, dtype=torch.float64)
            sound = grid[~grid.folds]
            rows: list[tuple[str, Warp, Warp | None]] = [
                ("SeparableWarp", separable, ~separable),
                ("GridWarp, per axis", grid, ~grid),
                ("GridWarp, per axis, not folding", sound, ~sound if sound.batch else None),
                ("GridWarp, refined", sound, sound.inverse() if sound.batch else None),
            ]
            for name, forth, back in rows:
                numbers = "- | - | - | -" if back is None else cells(forth, back, pictures)
                line = f"| {nodes} | {strength} | {name} | {numbers} | {forth.batch} of {args.warps} |"
                print(line, flush=True)
                text.append(line)
    text += [
        "",
        '"Off by" is the distance of l(l⁻¹(p)) from p, in pixels, over all pixels p. The columns of the two '
        "pictures are the",
        "root mean square of S⁻¹(S(I)) - I for values in [0, 1]. Interpolating twice costs an exact group "
        "that "
        "much too, so the",
        "rows of SeparableWarp are what the others are to be compared with. A refined inverse exists only "
        "where "
        "the grid does",
        "not fold; the last column says how many of the warps a row covers.",
        "",
        "## How it was measured",
        "",
        f"`{shlex.join(['python', *sys.argv])}`",
        f"with torch {torch.__version__}, Python {platform.python_version()}, float64. Each row has "
        f"{args.warps} "
        "random warps of the authors' distribution;",
        f"pictures have {SIZE} x {SIZE} pixels.",
    ]
    if args.out:
        write_page(args.out, "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
