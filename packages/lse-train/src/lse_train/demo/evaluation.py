"""Measuring the demo's models: accuracy and InvE (Eq. 24) over all scales and by bracket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.metrics import invariance_error
from lse_train.data import DigitsConfig, DigitsDataset, load_digits_dataset
from lse_train.demo.settings import BRACKETS, DemoSettings
from lse_train.demo.training import normalise

__all__ = ["Scores", "evaluate", "test_sets"]


@dataclass(frozen=True)
class Scores:
    """Accuracy in [0, 1] and InvE (squared L2 on the softmax, in [0, 2]) of a model on resized images."""

    accuracy: float
    invariance_error: float

    def as_dict(self) -> dict[str, float]:
        """Both, by name."""
        return {"accuracy": self.accuracy, "invariance_error": self.invariance_error}


def name_of(bracket: tuple[float, float]) -> str:
    """A bracket in words, "0.4-0.6"."""
    return f"{bracket[0]:g}-{bracket[1]:g}"


def test_sets(settings: DemoSettings) -> dict[str, DigitsDataset]:
    """Test images by bracket, and "all": the same bases, resized within each range; variant 0 at factor 1."""
    base = DigitsConfig(
        count=settings.test_bases,
        scale=settings.test_scale,
        resolution=settings.resolution,
        seed=settings.seed,
        split_seed=settings.seed,
        split="test",
        variants=settings.variants + 1,
        reference=True,
    )
    ranges = {"all": settings.test_scale, **{name_of(b): b for b in BRACKETS}}
    return {name: load_digits_dataset(replace(base, scale=scale)) for name, scale in ranges.items()}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    sets: Mapping[str, DigitsDataset],
    device: str,
    on_set: Callable[[], None],
) -> dict[str, Scores]:
    """Scores of `model` on each test set; accuracy counts the resized images, not the references."""
    model.eval()
    scores = {}
    for name, data in sets.items():
        variants = data.config.variants
        probabilities = predict(model, normalise(data.images), device).exp()
        by_base = probabilities.unflatten(0, (-1, variants))
        right = (probabilities.argmax(-1).cpu() == data.labels).unflatten(0, (-1, variants))
        scores[name] = Scores(
            accuracy=float(right[:, 1:].float().mean()),
            invariance_error=float(invariance_error(by_base[:, 0], by_base[:, 1:])),
        )
        on_set()
    return scores


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, device: str, batch: int = 200) -> Tensor:
    """Log-probabilities (N, 1000) for normalised images."""
    return torch.cat([model(part.to(device)) for part in images.split(batch)])


def nested(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Scores as they stand in results.json."""
    brackets = {name: score for name, score in scores.items() if name != "all"}
    return {
        **scores["all"].as_dict(),
        "accuracy_by_scale": {name: score.accuracy for name, score in brackets.items()},
        "invariance_error_by_scale": {name: score.invariance_error for name, score in brackets.items()},
    }
