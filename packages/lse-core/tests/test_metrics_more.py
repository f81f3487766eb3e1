"""Metrics over two processes, and what is said of metrics that went."""

import json
import multiprocessing
import runpy
from pathlib import Path

import pytest


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
