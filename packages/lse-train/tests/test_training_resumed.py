"""Training runs killed, stopped, resumed, and shared by two processes."""

import csv
import json
import multiprocessing
import os
import signal
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lse_core.errors import OutputError
from lse_train import RunConfig, RunInterruptedError, fit
from lse_train.running import fit as fit_here


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that need not import torch again, each a clean copy of one that did."""
    context = multiprocessing.get_context("forkserver")
    needed = [
        "lse_train.running",
        "lse_data.digits",
        "lse_dec.canonicalizers",
        "lse_dec.backbones",
    ]
    context.set_forkserver_preload([*needed, "lightning_fabric", "torch.utils.tensorboard"])
    return context


def contents(folder: Path) -> tuple[bytes, bytes, Any]:
    weights, log = folder / "model" / "model.safetensors", folder / "metrics.csv"
    return (
        weights.read_bytes(),
        log.read_bytes(),
        json.loads((folder / "result.json").read_text())["metrics"],
    )


def wait_for(path: Path, lines: int, process: Any) -> None:
    limit = time.monotonic() + 300
    while not path.exists() or path.read_text().count("\n") <= lines:
        assert process.is_alive(), "the run ended before it could be stopped"
        assert time.monotonic() < limit, "the run does not get on"
        time.sleep(0.005)


def test_a_run_killed_and_stopped_ends_with_the_numbers_of_one_that_was_not(
    settings: dict[str, Any], vit: dict[str, Any], processes: ForkServerContext, tmp_path: Path
) -> None:
    # stochastic depth draws from torch's global generator; mixing and erasing from two others
    config = RunConfig.parse(
        {
            **settings,
            "model": vit,
            "adapt": {**settings["adapt"], "sites": ["image", "blocks.1"]},
            "augment": {"warp_ratio": 2.0, "mixup": 0.2, "erasing": 0.3},
            "steps": 36,
            "log_every": 1,
            "checkpoint_every": 5,
            "optim": {"phases": [{"train": "canonicalizer"}, {"train": "both"}]},
            "data": {**settings["data"], "val": {"count": 8, "split": "val"}},
        }
    )
    folder = tmp_path / "stopped"
    log, state = folder / "metrics.csv", folder / "state.pt"
    # rows behind the last checkpoint are written by then, and an epoch of 7 steps is not over
    for number, rows in ((signal.SIGKILL, 8), (signal.SIGTERM, 18)):
        process = processes.Process(target=fit_here, args=(config, folder))
        process.start()
        wait_for(log, rows, process)
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == (-signal.SIGKILL if number == signal.SIGKILL else 1)
        assert not {"result.json", "model"} & {path.name for path in folder.iterdir()}
        step = torch.load(state, weights_only=True)["step"]
        assert step < 36
        if number == signal.SIGTERM:  # nothing is lost
            with log.open() as file:
                assert step == max(int(row["step"]) for row in csv.DictReader(file))
        else:
            assert step % 5 == 0
    seen: list[int] = []
    fit(config, folder, watch=lambda done, steps, row: seen.append(done))
    assert seen == list(range(step + 1, 37))
    fit(config, tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")
    assert not state.exists()
    with log.open() as file:
        rows = list(csv.DictReader(file))
    # TensorBoard forgets, as the log does, what was done behind the checkpoint
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    shown = {event.step: event.value for event in events.Scalars("loss/task")}
    assert shown == pytest.approx({int(r["step"]): float(r["loss/task"]) for r in rows if r["loss/task"]})


def test_a_folder_takes_one_run_at_a_time(settings: dict[str, Any], tmp_path: Path) -> None:
    config = RunConfig.parse({**settings, "adapt": None, "steps": 3})
    refused: list[str] = []

    def start_another(step: int, steps: int, row: Any) -> None:
        for resume in (True, False):  # to start over would take the files of the run that goes on
            with pytest.raises(OutputError) as caught:
                fit(config, tmp_path, resume=resume)
            refused.append(str(caught.value))

    done = fit(config, tmp_path, watch=start_another)
    assert refused == 6 * [
        f"another process is writing to {tmp_path}: wait until it has ended, or choose another --out"
    ]
    assert done.steps == 3
    assert fit(config, tmp_path).metrics == done.metrics  # it is free again


def test_an_interrupt_finishes_the_step_and_says_how_to_go_on(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    def interrupt(step: int, steps: int, row: Any) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RunInterruptedError) as caught:
        fit(RunConfig.parse({**settings, "adapt": None}), tmp_path, watch=interrupt)
    assert str(caught.value) == (
        f"interrupted after step 4 of 12; the state is in {tmp_path}: the same command goes on from it"
    )
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4


def test_two_processes_give_the_result_of_one(
    settings: dict[str, Any], vit: dict[str, Any], processes: ForkServerContext, tmp_path: Path
) -> None:
    steady = {**vit, "kwargs": {**vit["kwargs"], "drop_path_rate": 0.0}}
    config = RunConfig.parse(
        {
            **settings,
            "model": steady,
            "adapt": {**settings["adapt"], "sites": ["image", "blocks.1"]},
            "augment": {"warp_ratio": 2.0, "mixup": 0.2, "cutmix": 1.0, "erasing": 0.3},
            "precision": "float64",
            "steps": 4,
            "optim": {"phases": [{"train": "canonicalizer"}, {"train": "both", "share": 3}]},
        }
    )
    one = fit(config, tmp_path / "one")
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="test", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", local_addr="localhost", start_method="forkserver", max_restarts=0,
        monitor_interval=0.05,
    )  # fmt: skip
    found = elastic_launch(launch, fit_here)(config, tmp_path / "two")
    assert sorted(found) == [0, 1]
    first, second = (
        load_file(folder / "model" / "model.safetensors") for folder in (one.folder.parent, tmp_path / "two")
    )
    start = load_file(
        fit(
            RunConfig.parse({**config.plain(), "optim": {"lr": 0, "canonicalizer_lr": 0}}), tmp_path / "0"
        ).folder
        / "model.safetensors"
    )
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-7)
    assert any(
        not torch.equal(start[name], value) for name, value in first.items() if "canonicalizer" in name
    )
    assert found[0].metrics["far"]["accuracy"] == one.metrics["far"]["accuracy"]
