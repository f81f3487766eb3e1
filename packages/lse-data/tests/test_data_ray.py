"""Photographs made by Ray Data: the bytes of the local engine, and nothing lost with a machine that dies.

Ray takes half a minute to start, so this runs where LSE_TEST_RAY is set: `make ray`.
"""

import json
import logging
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lse_core.cli import main
from lse_core.errors import LSEError
from lse_data.scaling import ScalingConfig, scale_pictures

asked = pytest.mark.skipif(
    find_spec("ray") is None or not os.environ.get("LSE_TEST_RAY"), reason="Ray is tested by `make ray`"
)


def write(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    y, x = np.mgrid[:360, :480]
    for number in range(count):
        mask = (y - 180) ** 2 + (x - 180 - 4 * number) ** 2 <= 90**2
        values = np.stack([x // 2, 40 + y // 2, 60 + 0 * x], -1).astype(np.uint8)
        values[mask] = (210, 20, 40)
        Image.fromarray(values).save(folder / f"p{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"p{number}.mask.png")
    (folder / "broken.png").write_bytes(b"no picture")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_ray_that_is_not_installed_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write(tmp_path / "photos", 1)
    with pytest.raises(LSEError, match=r"pip install 'lse-data\[ray\]'"):
        scale_pictures([tmp_path / "photos"], tmp_path / "set", ScalingConfig(), engine="ray")
    with pytest.raises(LSEError, match="Did you mean 'ray'"):
        scale_pictures([tmp_path / "photos"], tmp_path / "set", ScalingConfig(), engine="rai")


@asked
def test_a_machine_that_dies_loses_nothing_and_changes_no_byte(tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    write(tmp_path / "photos", 31)
    config = ScalingConfig(factors=(0.8, 1.0, 1.2), others="random")
    scale_pictures([tmp_path / "photos"], tmp_path / "local", config)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    killed: list[int] = []

    def kill_one(done: int, count: int) -> None:
        if done > 0 and not killed:
            assert ray.cluster_resources()["CPU"] == 2
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            killed.append(count - done)

    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        told = scale_pictures(
            [tmp_path / "photos"], tmp_path / "ray", config, jobs=None, engine="ray", progress=kill_one
        )
        end = time.monotonic() + 60
        while ray.cluster_resources()["CPU"] > 1:  # Ray finds out some seconds later
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed[0] >= 20  # photographs that were still to come
    assert (told["made"], told["counts"]["kept"]) == (32, 31)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@asked
def test_the_command_starts_ray_itself_and_goes_on_with_what_is_there(tmp_path):
    write(tmp_path / "photos", 5)
    command = ["data", "scale-objects", str(tmp_path / "photos"), "--factors", "0.8", "--json"]
    for engine, jobs in (("local", "1"), ("ray", "2")):
        out = ["--out", str(tmp_path / engine), "--engine", engine, "--jobs", jobs]
        done = CliRunner().invoke(main, [*command, *out])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout.splitlines()[-1])["made"] == 6
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    again = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "ray"), "--engine", "ray"])
    assert json.loads(again.stdout.splitlines()[-1])["made"] == 0
