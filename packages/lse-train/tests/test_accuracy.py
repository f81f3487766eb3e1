"""Accuracy by scale bracket."""

import pytest
import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_train.accuracy import accuracy_per_scale

BRACKETS = [(0.4, 1.0), (1.0, 2.0), (2.0, 3.0)]


def answers(shares: list[float], n: int = 10000) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, targets and scales with the given accuracy in each bracket."""
    right = torch.cat([torch.arange(n) < round(s * n) for s in shares])
    scales = torch.cat([torch.linspace(low, high - 1e-3, n) for low, high in BRACKETS])
    return right.long(), torch.ones(3 * n, dtype=torch.long), scales


@pytest.mark.parametrize(
    ("row", "overall"),
    [
        ([91.64, 96.32, 93.84], (93.93, 1.91)),
        ([90.16, 95.39, 90.54], (92.03, 2.38)),
        ([95.14, 97.81, 96.64], (96.53, 1.09)),
    ],
    ids=["Aug", "Canon", "Ours"],
)
def test_mean_and_spread_are_those_of_table_3(row: list[float], overall: tuple[float, float]) -> None:
    result = accuracy_per_scale(*answers([r / 100 for r in row]), BRACKETS)
    assert (100 * result.accuracy).tolist() == pytest.approx(row, abs=1e-4)
    assert 100 * float(result.mean) == pytest.approx(overall[0], abs=0.01)
    assert 100 * float(result.std) == pytest.approx(overall[1], abs=0.01)


def test_accuracy_per_scale_against_a_loop() -> None:
    g = torch.Generator().manual_seed(0)
    scores, targets = torch.rand(200, 5, generator=g), torch.randint(0, 5, (200,), generator=g)
    scales = 0.3 + 3 * torch.rand(200, generator=g)
    scales[0], scales[1] = 3.0, 1.0  # the last bracket has its upper end, others do not
    result = accuracy_per_scale(scores, targets, scales, BRACKETS)
    for k, (low, high) in enumerate(BRACKETS):
        hits = [
            int(scores[n].argmax()) == int(targets[n])
            for n in range(200)
            if low <= float(scales[n]) < high or (high == 3.0 and float(scales[n]) == 3.0)
        ]
        assert float(result.accuracy[k]) == pytest.approx(sum(hits) / len(hits))
        assert int(result.samples[k]) == len(hits)
    empty = accuracy_per_scale(scores, targets, scales, [*BRACKETS, (5.0, 6.0)])
    assert bool(empty.accuracy[3].isnan())
    assert bool(empty.mean.isfinite())
    for bad in ([], [(2.0, 1.0)]):
        with pytest.raises(ShapeError, match="brackets must be ranges"):
            accuracy_per_scale(scores, targets, scales, bad)
    with pytest.raises(ShapeError, match="must agree"):
        accuracy_per_scale(scores, targets, scales[:5], BRACKETS)
