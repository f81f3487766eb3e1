"""Accuracy by scale bracket, and metrics over two processes."""

import json
import multiprocessing
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lse_core.errors import ShapeError
from lse_core.metrics import accuracy_per_scale

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


def test_metrics_that_went_say_what_to_do_instead() -> None:
    with pytest.raises(ImportError, match=r"AuthorsError is gone: give a torchmetrics\.MeanMetric .*softmax"):
        from lse_core.metrics import AuthorsError  # noqa: F401
    with pytest.raises(
        ImportError, match=r"AccuracyPerScale is gone: gather .* call .*accuracy_per_scale once"
    ):
        from lse_core.metrics import AccuracyPerScale  # noqa: F401


# two processes ----------------------------------------------------------------------------------

WORKER = """
import json, os
import torch
import torch.distributed as dist
from lse_core import EquivarianceError, InvarianceError, SeparableWarp

def numbers(parts):
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(7, 2, 5, 6, generator=g), torch.rand(7, 2, 5, 6, generator=g)
    w = SeparableWarp.random(7, 3, generator=g)
    equivariance, invariance = EquivarianceError(), InvarianceError()
    for part in parts:
        equivariance.update(a[part], b[part], w[part])
        invariance.update(a[part], b[part])
    return [float(m.compute()) for m in (equivariance, invariance)]

torch.set_num_threads(1)
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
alone = numbers([slice(0, 7)])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
# unequal shares, so that a mean of the processes' means is wrong; the first process has more batches
shares = [[slice(0, 2), slice(2, 5)], [slice(5, 7)]]
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump([alone, numbers(shares[rank])], file)
"""


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    context = multiprocessing.get_context("forkserver")  # torch is imported there: see conftest.py
    running = [
        context.Process(
            target=runpy.run_path,
            args=(str(tmp_path / "worker.py"), {"rank": rank, "folder": str(tmp_path)}),
        )
        for rank in range(2)
    ]
    for process in running:
        process.start()
    for rank, process in enumerate(running):
        process.join(120)
        assert process.exitcode == 0
        alone, together = json.loads((tmp_path / f"{rank}.json").read_text())
        assert together == pytest.approx(alone, rel=1e-6)
        assert all(x > 0 for x in alone)
