"""A stranger's plugin, built, installed and used by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example_plugin"

USE = """
import json
import sys

import torch
import lse_dec
import lse_export
from lse_core import registry
from lse_dec.solvers import Naive, solve
from lse_example import PatchNet

# a contraction whose fixed point is known: z = A z + b
torch.manual_seed(0)
a = torch.diag(torch.linspace(0.1, 0.9, 6, dtype=torch.float64))
b = torch.randn(3, 6, dtype=torch.float64)
exact = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - a, b.T).T
def error(solver):
    return (solve(lambda z: z @ a.T + b, torch.zeros_like(b), solver, steps=12).z - exact).norm()
aitken = registry().get("solver", "aitken")()
assert error(aitken) < 0.1 * error(Naive()), (error(aitken), error(Naive()))

model, images = PatchNet().eval(), torch.rand(2, 3, 32, 32)
plain = model(images)
adapted = lse_dec.adapt(model, solver="aitken", steps=3)
assert list(adapted.sites) == ["image", "stages.0"], list(adapted.sites)
assert {type(c.solver).__name__ for c in adapted.canonicalizers.values()} == {"Aitken"}
# a fresh canonicalizer answers with the identity; once it is perturbed, the answer must move
torch.testing.assert_close(adapted(images), plain)
for parameter in adapted.canonicalizer_parameters():
    parameter.data += 0.5 * torch.randn_like(parameter)
assert (adapted(images) - plain).abs().max() > 1e-4

# one training step reaches the canonicalizers, once they are calm enough not to sit at their bounds
def calm():
    for canonicalizer in adapted.canonicalizers.values():
        for module in canonicalizer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        torch.nn.init.normal_(canonicalizer.update.head.weight, std=0.02)
        torch.nn.init.zeros_(canonicalizer.update.head.bias)
calm()
optimiser = torch.optim.SGD(adapted.parameters(), lr=0.1)
before = [p.detach().clone() for p in adapted.canonicalizer_parameters()]
loss = torch.nn.functional.cross_entropy(adapted.train()(images), torch.tensor([1, 2]))
loss.backward()
optimiser.step()
after = list(adapted.canonicalizer_parameters())
assert loss.isfinite() and all(p.isfinite().all() for p in after)
assert any(not torch.equal(old, new) for old, new in zip(before, after))

# exported with the plugin's solver unrolled, and equal
calm()
adapted.eval()
report = lse_export.export_onnx(adapted, images, sys.argv[1])
assert json.loads(report.metadata["lse.sites"]) == ["image", "stages.0"], report.metadata
assert "aitken" in str(report.metadata).lower(), report.metadata
assert not {"GridSample", "Loop", "If", "Scan"} & set(report.ops), report.ops
checked = lse_export.verify(sys.argv[1], adapted, torch.rand(5, 3, 32, 32), batch_sizes=(1, 5))
assert checked.relative <= 1e-4, checked.summary()

model = lse_dec.unadapt(adapted)
assert type(model) is PatchNet and not any("canonicalizer" in name for name in model.state_dict())
"""

# a run by names alone; digits are grey and have 1,000 labels
RUN = """
model: {name: patchnet, kwargs: {in_chans: 1, num_classes: 1000}}
data:
  name: digits
  options: {resolution: 32, scale: [0.6, 1.6]}
  train: {count: 16}
  tests: {far: {count: 4, split: test, variants: 2, reference: true}}
  mean: 0.1
  std: 0.3
adapt: {sites: [image, stages.1], canonicalizer: glance, solver: aitken, segments: 3}
canonicalizer: {steps: null}
steps: 3
batch_size: 8
device: cpu
"""

COMMANDS = """
import sys
from lse_core.cli import main

for line in sys.stdin.read().splitlines():
    try:
        main(line.split(), standalone_mode=True)
    except SystemExit as end:
        assert not end.code, (line, end.code)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """This environment with the example installed in a folder beside it."""
    source = tmp_path_factory.mktemp("source") / "example"
    shutil.copytree(EXAMPLE, source)  # a build writes into its source
    target = tmp_path_factory.mktemp("site")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv, "uv is missing: it comes with `make install`"
    command = [uv, "pip", "install", "-p", sys.executable, "--target", str(target), "--no-deps"]
    done = subprocess.run(
        [*command, "--no-build-isolation", str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LSE_")}
    return {**clean, "PYTHONPATH": str(target)}


def test_installed_plugin_is_listed_with_what_it_provides(environment: dict[str, str]) -> None:
    lse = Path(sys.executable).parent / "lse"
    done = subprocess.run([lse, "plugins", "--json"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}
    assert found["example"] == {
        "name": "example",
        "distribution": "lse-example",
        "version": "0.1.0",
        "status": "ok",
        "error": "",
        "provides": {"solver": ["aitken"], "canonicalizer": ["glance"], "backbone": ["patchnet"]},
    }


def test_its_solver_and_backbone_adapt_train_and_export(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", USE, tmp_path / "model.onnx"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_its_names_work_in_train_evaluate_and_export(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    # one process for all three, because starting takes longer than the work
    lines = [
        "train run.yaml --out run --json",
        "evaluate run --json",
        "export onnx run/model --out model.onnx --size 32 32 --json",
        "export verify model.onnx run/model --size 32 32 --json",
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "LSE_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    trained, measured, exported, verified = map(json.loads, done.stdout.splitlines())
    assert trained["steps"] == 3
    assert measured == trained["metrics"]
    # not the identity any more, so the canonicalizer was reached
    assert all(site["displacement_pixels"] > 0 for site in measured["far"]["sites"].values())
    assert list(measured["far"]["sites"]) == ["image", "stages.1"]
    assert "aitken" in exported["metadata"]["lse.solver"].lower()
    assert verified["ok"]
    settings = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert settings["plugins"] == {
        "canonicalizer:glance": "lse-example",
        "solver:aitken": "lse-example",
        "update:residual": "lse-dec",
        "warp:separable": "lse-core",
    }
