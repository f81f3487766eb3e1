"""A stranger's plugin, built, installed and used by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
from lse_example.network import PebbleNet

# a contraction whose fixed point is known: z = A z + b
torch.manual_seed(0)
a = torch.diag(torch.linspace(0.1, 0.9, 6, dtype=torch.float64))
b = torch.randn(3, 6, dtype=torch.float64)
exact = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - a, b.T).T
def error(solver):
    return (solve(lambda z: z @ a.T + b, torch.zeros_like(b), solver, steps=16).z - exact).norm()
heavyball = registry().get("solver", "heavyball")
assert error(heavyball(relaxation=2.5)) < 0.1 * error(Naive())
assert error(heavyball()) < error(Naive())

model, images = PebbleNet().eval(), torch.rand(2, 3, 32, 32)
plain = model(images)
adapted = lse_dec.adapt(model, canonicalizer="weigh", solver="heavyball", steps=3)
assert list(adapted.sites) == ["image", "mixers.0"], list(adapted.sites)
assert {type(c.solver).__name__ for c in adapted.canonicalizers.values()} == {"HeavyBall"}
# a fresh canonicalizer answers with the identity
torch.testing.assert_close(adapted(images), plain)

# two training steps reach the canonicalizers: the first only their gain, which begins at zero
optimiser = torch.optim.SGD(adapted.parameters(), lr=0.3)
before = {n: p.detach().clone() for n, p in adapted.named_parameters() if ".canonicalizer." in n}
for step in range(2):
    loss = torch.nn.functional.cross_entropy(adapted.train()(images), torch.tensor([1, 2]))
    loss = loss + lse_dec.equivariance_loss(adapted, images, generator=torch.Generator().manual_seed(step))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
after = dict(adapted.named_parameters())
assert loss.isfinite() and all(after[n].isfinite().all() for n in before)
assert all(not torch.equal(after[n], p) for n, p in before.items()), before.keys()

# once they are stirred, the answer moves; registers are never touched
with torch.no_grad():
    for canonicalizer in adapted.canonicalizers.values():
        canonicalizer.gain.fill_(0.7)
    adapted.eval()
    with adapted.without_sites() as base:
        plain = base(images)
    assert (adapted(images) - plain).abs().max() > 1e-4
    tokens = torch.randn(2, 66, 16)
    entered = []
    hook = adapted.sites["mixers.0"].stage.register_forward_pre_hook(
        lambda m, args, kwargs: entered.append(kwargs["tokens"]), with_kwargs=True)
    adapted.sites["mixers.0"](tokens=tokens)
    hook.remove()
    assert torch.equal(entered[0][:, :2], tokens[:, :2])
    assert (entered[0][:, 2:] - tokens[:, 2:]).abs().max() > 1e-2

# saved and loaded by name, settings of the solver included
with torch.no_grad():
    options = {"solver": heavyball(momentum=0.1), "segments": 3}
    other = lse_dec.adapt(PebbleNet().eval(), canonicalizer="weigh", **options)
    lse_dec.save(other, sys.argv[2])
    again = lse_dec.load(sys.argv[2], PebbleNet().eval())
assert again.canonicalizers["image"].solver == heavyball(momentum=0.1)
assert again.canonicalizers["image"].segments == 3

# refused with the closest name, and in one line
for words, asked in (("Did you mean 'segments'", {"segmets": 3}), ("ratio above 1", {"ratio": 9.0})):
    try:
        lse_dec.adapt(PebbleNet(), "image", canonicalizer="weigh", **asked)
    except Exception as refused:
        assert words in str(refused), refused
    else:
        raise AssertionError(asked)

# exported with the plugin's solver unrolled, and equal
report = lse_export.export_onnx(adapted, images, sys.argv[1])
assert json.loads(report.metadata["lse.sites"]) == ["image", "mixers.0"], report.metadata
assert "heavyball" in str(report.metadata).lower(), report.metadata
assert not {"GridSample", "Loop", "If", "Scan"} & set(report.ops), report.ops
checked = lse_export.verify(sys.argv[1], adapted, torch.rand(5, 3, 32, 32), batch_sizes=(1, 5))
assert checked.relative <= 1e-4, checked.summary()

# a family of warps of the plugin's own: searched, saved, loaded, exported
alike = lse_dec.adapt(PebbleNet().eval(), warp="alike", rule="compose", segments=4, steps=2)
with torch.no_grad():
    for canonicalizer in alike.canonicalizers.values():
        canonicalizer.update.head.weight.normal_(std=2.0)
    with lse_dec.observe(alike) as record:
        alike(images)
    for seen in record.values():
        assert seen.solution.z.shape == (2, 4)
        assert torch.equal(seen.warp.x.values, seen.warp.y.values)
        assert (seen.warp.x.values - seen.warp.x.knots).abs().max() > 1e-3
    lse_dec.save(alike, sys.argv[2] + "-alike")
    again = lse_dec.load(sys.argv[2] + "-alike", PebbleNet().eval())
    assert torch.equal(again(images), alike(images))
report = lse_export.export_onnx(alike, images, sys.argv[1] + ".alike.onnx", with_warps=True)
assert "GridSample" not in report.ops, report.ops
assert lse_export.verify(sys.argv[1] + ".alike.onnx", alike, images).relative <= 1e-4

model = lse_dec.unadapt(adapted)
assert type(model) is PebbleNet and not any("canonicalizer" in name for name in model.state_dict())
"""

# a run by names alone; digits are grey and have 1,000 labels
RUN = """
model: {name: pebblenet, kwargs: {in_chans: 1, num_classes: 1000}}
data:
  name: digits
  options: {resolution: 32, scale: [0.6, 1.6]}
  train: {count: 16}
  tests: {far: {count: 4, split: test, variants: 2, reference: true}}
  mean: 0.1
  std: 0.3
adapt: {sites: [image, mixers.1], canonicalizer: weigh, solver: heavyball, segments: 3}
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("used")


@pytest.fixture(scope="module")
def said(environment: dict[str, str], place: Path) -> dict[str, Any]:
    """What commands print as JSON, after all that USE asserts: in one process, which takes long to start."""
    (place / "run.yaml").write_text(RUN)
    lines = {
        "plugins": "plugins --json",
        "train": "train run.yaml --out run --json",
        "evaluate": "evaluate run --json",
        "onnx": "export onnx run --out model.onnx --json",
        "verify": "export verify model.onnx run --json",
    }
    done = subprocess.run(
        [sys.executable, "-c", USE + COMMANDS, place / "used.onnx", place / "saved"],
        input="\n".join(lines.values()),
        capture_output=True,
        text=True,
        cwd=place,
        env={**environment, "LSE_CACHE": str(place / "cache")},
    )
    assert done.returncode == 0, done.stderr
    found, rest = {}, done.stdout.strip()
    for name in lines:
        found[name], end = json.JSONDecoder().raw_decode(rest)
        rest = rest[end:].lstrip()
    assert rest == ""
    return found


def test_installed_plugin_is_listed_with_what_it_provides(said: dict[str, Any]) -> None:
    found = {plugin["name"]: plugin for plugin in said["plugins"]["plugins"]}
    assert found["example"] == {
        "name": "example",
        "distribution": "lse-example",
        "version": "0.1.0",
        "status": "ok",
        "error": "",
        "provides": {
            "solver": ["heavyball"],
            "canonicalizer": ["weigh"],
            "warp": ["alike"],
            "backbone": ["pebblenet"],
        },
    }


def test_its_names_work_in_train_evaluate_and_export(said: dict[str, Any], place: Path) -> None:
    trained, measured, exported, verified = (said[name] for name in ("train", "evaluate", "onnx", "verify"))
    assert trained["steps"] == 3
    assert measured == trained["metrics"]
    # not the identity any more, so the canonicalizer was reached
    assert all(site["displacement_pixels"] > 0 for site in measured["far"]["sites"].values())
    assert list(measured["far"]["sites"]) == ["image", "mixers.1"]
    assert "heavyball" in exported["metadata"]["lse.solver"].lower()
    assert verified["ok"]
    settings = json.loads((place / "run" / "model" / "config.json").read_text())
    assert settings["adapt"]["plugins"] == {
        "canonicalizer:weigh": "lse-example",
        "solver:heavyball": "lse-example",
        "update:residual": "lse-dec",
        "warp:separable": "lse-core",
    }
