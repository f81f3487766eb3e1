"""Train small networks on weakly transformed digits and test them on strongly transformed ones, by softness.

    python tools/bench/soft_digits.py --model mlp --transform rotation --out runs/soft
    python tools/bench/soft_digits.py --model cnn --transform scale --out runs/soft
    python tools/bench/soft_digits.py --table runs/soft

Digits of scikit-learn at 16 x 16 pixels: 1,100 to train, 197 to choose, 500 to test. Rotations: +-10 degrees
in training, +-60 in the tests. Local scaling: slopes within [1/1.2, 1.2], then [1/4, 4]. Each finished run is
a line of JSON in the folder, so the script goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import lse_soft
from lse_core.metrics import invariance_error
from lse_core.resample import scale
from lse_core.separable import SeparableWarp

SIDE = 16
TRAIN, VAL = 1100, 197
DRAWS = 5

Case = dict[str, Any]

IMAGE = {"places": {"1": "image:16x16"}}
CASES: dict[str, dict[str, Case | None]] = {
    "mlp-rotation": {
        "plain": None,
        **{f"hard {k}/256": {"keep": k / 256, "threshold": "hard", **IMAGE} for k in (128, 64, 32, 15, 8)},
        **{f"cosine {k}/256": {"keep": k / 256, **IMAGE} for k in (128, 64, 32, 15)},
        "lie 15/256": {"keep": 15 / 256, "threshold": "hard", "method": "lie", **IMAGE},
        "harmonics 15/256": {"keep": 15 / 256, "threshold": "hard", "method": "harmonics", **IMAGE},
    },
    "cnn-rotation": {
        "plain": None,
        **{f"hard {k}": {"keep": k, "threshold": "hard"} for k in (0.75, 0.5, 0.25)},
        **{f"cosine {k}": {"keep": k} for k in (0.75, 0.5)},
    },
    "cnn-scale": {
        "plain": None,
        **{f"hard {k}": {"keep": k, "threshold": "hard", "ratio": 4.0} for k in (0.75, 0.5, 0.25)},
        **{f"cosine {k}": {"keep": k, "ratio": 4.0} for k in (0.75, 0.5)},
    },
}
MIXING = {"places": {"4.linear_tokens": "mixing:8x8", "5.linear_tokens": "mixing:8x8"}}
CASES["mixer-scale"] = {
    "plain": None,
    **{
        f"hard {k}": {"keep": k, "threshold": "hard", "ratio": 4.0, **MIXING} for k in (0.25, 0.1, 0.03, 0.01)
    },
    "hard 0, equivariant": {"softness": 0.0, "threshold": "hard", "ratio": 4.0, **MIXING},
    **{f"cosine {k}": {"keep": k, "ratio": 4.0, **MIXING} for k in (0.25, 0.1)},
    # is it the group, or any such restriction?
    "translation, hard 0.1": {"group": "translation", "keep": 0.1, "threshold": "hard", **MIXING},
    "rotation, hard 0.1": {"group": "rotation", "keep": 0.1, "threshold": "hard", **MIXING},
}
GROUPS = {"rotation": "rotation", "scale": "local_scale"}
EPOCHS = {"mlp": 30, "cnn": 12, "mixer": 30}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=["mlp", "cnn", "mixer"], default="mlp")
    parser.add_argument("--transform", choices=["rotation", "scale"], default="rotation")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for results")
    parser.add_argument("--table", type=Path, help="folder to print the tables of")
    options = parser.parse_args(arguments)
    if options.table:
        for path in sorted(options.table.glob("*.jsonl")):
            print(table(path))
        return
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{options.model}-{options.transform}"
    path = options.out / f"{name}.jsonl"
    done = {(row["case"], row["seed"]) for row in rows(path)}
    for seed in range(options.seeds):
        for case, settings in CASES[name].items():
            if (case, seed) not in done:
                row = run(options.model, options.transform, settings, seed)
                with path.open("a") as file:
                    file.write(json.dumps({"case": case, "seed": seed, **row}) + "\n")


def digits() -> tuple[Tensor, Tensor]:
    """All images (n, 1, 16, 16) in [0, 1] in a fixed random order, and labels."""
    found = load_digits()
    x = torch.tensor(found.images / 16.0, dtype=torch.float32).unsqueeze(1)
    x = F.pad(F.interpolate(x, (12, 12), mode="bilinear", align_corners=False), (2, 2, 2, 2))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order], torch.tensor(found.target)[order]


def rotated(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Each image by an angle uniform in +-degrees, zero outside."""
    t = math.radians(degrees) * (2 * torch.rand(len(x), generator=generator) - 1)
    c, s, o = torch.cos(t), torch.sin(t), torch.zeros(len(x))
    theta = torch.stack([torch.stack([c, -s, o], 1), torch.stack([s, c, o], 1)], 1)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def scaled(x: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Each image by a random monotone warp with slopes within [1/ratio, ratio]."""
    return scale(x, SeparableWarp.random(len(x), 4, ratio, generator=generator))


TRANSFORMS: dict[str, tuple[Callable[[Tensor, float, torch.Generator], Tensor], float, float]] = {
    "rotation": (rotated, 10.0, 60.0),
    "scale": (scaled, 1.2, 4.0),
}


def network(kind: str) -> nn.Module:
    """A multilayer perceptron of 128 hidden units, or three 5 x 5 convolutions."""
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 128), nn.ReLU(), nn.Linear(128, 10))
    if kind == "mixer":
        embed = [nn.Conv2d(1, 48, 2, 2), nn.Flatten(2), Transpose(), nn.LayerNorm(48)]
        return nn.Sequential(
            *embed, Mixer(64, 48), Mixer(64, 48), nn.LayerNorm(48), Mean(), nn.Linear(48, 10)
        )
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 5, padding=2), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Transpose(nn.Module):
    """Channels behind tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) to (B, N, C)."""
        return x.mT


class Mean(nn.Module):
    """Mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, C)."""
        return x.mean(1)


class Mixer(nn.Module):
    """A linear map between tokens, then a network on each token, both residual.

    Args:
        tokens: how many.
        width: channels of each.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.linear_tokens = nn.Linear(tokens, tokens)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        x = x + self.linear_tokens(self.first(x).mT).mT
        return x + self.mlp(self.second(x))


def run(kind: str, transform: str, settings: Case | None, seed: int) -> dict[str, float]:
    """Train one network and measure it."""
    torch.manual_seed(seed)
    change, little, much = TRANSFORMS[transform]
    x, y = digits()
    model = network(kind)
    kappa = 0.0
    if settings is not None:
        lse_soft.soften(model, **{"group": GROUPS[transform], **settings})
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-2)
    steps = EPOCHS[kind] * (TRAIN // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(TRAIN, (64,), generator=generator)
        loss = F.cross_entropy(model(change(x[chosen], little, generator)), y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    if settings is not None:
        kappa = max(c.kappa for c in lse_soft.bound(model).values())
        lse_soft.fold(model)
    model.eval()
    val, test = slice(TRAIN, TRAIN + VAL), slice(TRAIN + VAL, None)
    found = {"kappa": kappa, "val": measure(model, x[val], y[val], change, much)["transformed"]}
    return {**found, **measure(model, x[test], y[test], change, much)}


@torch.no_grad()
def measure(
    model: nn.Module, x: Tensor, y: Tensor, change: Callable[..., Tensor], much: float
) -> dict[str, float]:
    """Accuracy on the images as they are and transformed, InvE (Eq. 24), and the mean top probability."""
    generator = torch.Generator().manual_seed(1)
    plain = model(x).softmax(-1)
    right, errors, sure = [], [], []
    for _ in range(DRAWS):
        moved = model(change(x, much, generator)).softmax(-1)
        right.append(float((moved.argmax(1) == y).float().mean()))
        errors.append(float(invariance_error(plain, moved)))
        sure.append(float(moved.max(1).values.mean()))
    return {
        "clean": float((plain.argmax(1) == y).float().mean()),
        "transformed": statistics.mean(right),
        "inve": statistics.mean(errors),
        "confidence": statistics.mean(sure),
    }


def rows(path: Path) -> list[dict[str, Any]]:
    """Finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(path: Path) -> str:
    """Means and spreads over seeds, and the case that validation would choose."""
    found = rows(path)
    cases = list(dict.fromkeys(row["case"] for row in found))
    keys = ("val", "clean", "transformed", "inve", "confidence", "kappa")
    seeds = len({row["seed"] for row in found})
    lines = [f"\n{path.stem}, {seeds} seeds\n"]
    lines += [
        "| kept | validation, transformed | clean | transformed | InvE | confidence | kappa |",
        "|---" * 7 + "|",
    ]
    means = {}
    for case in cases:
        values = {k: [row[k] for row in found if row["case"] == case] for k in keys}
        means[case] = statistics.mean(values["val"])
        cells = [
            f"{statistics.mean(v):.3f} ± {statistics.stdev(v) if len(v) > 1 else 0.0:.3f}"
            for v in values.values()
        ]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    lines.append(f"\nChosen on validation: {max(means, key=lambda case: means[case])}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
