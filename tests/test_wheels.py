"""Each package, built and installed with what it needs and nothing else of the workspace."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("lse-core", "lse-data", "lse-dec", "lse-train", "lse-export", "lse-seg", "lse-soft")
NETWORK = re.compile(r"failed to fetch|error sending request|dns error|could not connect", re.IGNORECASE)

IMPORT_CORE = """
import sys
import lse_core
for name in lse_core.__all__:
    if name not in ("EquivarianceError", "InvarianceError"):
        getattr(lse_core, name)
assert "torch" in sys.modules
heavy = {"timm", "onnx", "onnxruntime", "mmengine", "matplotlib", "torchmetrics", "torchdeq", "sklearn"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
DRAW = """
import lse_data
images, label = lse_data.generate_digits(lse_data.DigitsConfig(count=2))[0]
assert images.shape == (1, 96, 96)
assert 0 <= label < 1000
"""
SOFTEN = """
import lse_soft, torch
model = lse_soft.soften(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3)), "rotation", 0.5)
assert lse_soft.bound(model)["0"].kappa <= 0.5
"""
ASK_FOR_EXTRA = """
try:
    lse_core.EquivarianceError
except lse_core.LSEError as error:
    assert "pip install 'lse-core[metrics]'" in str(error), error
else:
    raise AssertionError("torchmetrics is there")
"""


def uv(*args: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the uv beside this interpreter, or the one on the path."""
    command = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert command, "uv is missing: it comes with `make install`"
    return subprocess.run([command, *args], capture_output=True, text=True, input=given)


class Environment:
    """An empty virtual environment to which packages are added one after the other.

    Ours are built and installed as wheels. What they need of others is resolved for real, then linked from
    this environment rather than installed: torch alone is 20,000 files.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.venv = place, place / "venv"
        for package in PACKAGES:
            source = str(ROOT / "packages" / package)
            done = uv(
                "build", "--wheel", "--no-build-isolation", "-p", sys.executable, "-o", str(place), source
            )
            assert done.returncode == 0, done.stderr
        assert uv("venv", "-p", sys.executable, str(self.venv)).returncode == 0
        self.site = next(self.venv.glob("lib/python*/site-packages"))
        # whoever asks for one of ours gets the wheel just built, never a namesake from the registry
        wheels = {package: next(place.glob(f"{package.replace('-', '_')}-*.whl")) for package in PACKAGES}
        lines = [f"{package} @ {wheel.as_uri()}" for package, wheel in wheels.items()]
        (place / "overrides.txt").write_text("\n".join(lines))
        pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"]
        (place / "constraints.txt").write_text("\n".join(pins))

    def install(self, package: str) -> None:
        """Install the wheel of `package` and exactly what the resolver says that it needs."""
        done = uv(
            *("pip", "compile", "-", "-p", sys.executable, "--no-header", "--no-annotate"),
            *("--overrides", str(self.place / "overrides.txt")),
            *("--constraints", str(self.place / "constraints.txt")),
            given=package,
        )
        if done.returncode and NETWORK.search(done.stderr):
            pytest.skip(f"the package registry cannot be reached: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
        needed = done.stdout.split("\n")
        ours = [line.partition(" @ ")[2] for line in needed if " @ " in line]
        done = uv("pip", "install", "-p", str(self.venv / "bin" / "python"), "--no-deps", *ours)
        assert done.returncode == 0, done.stderr
        for line in needed:
            if "==" in line:
                self._link(line.partition("==")[0])

    def _link(self, distribution: str) -> None:
        """Link what `distribution` put into this environment's site-packages."""
        files = metadata.distribution(distribution).files
        assert files, f"{distribution} has no list of files; install it with `make install`"
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            link = self.site / top
            if not link.is_symlink():  # nvidia/ belongs to many
                link.symlink_to(Path(str(files[0].locate())).parents[len(files[0].parts) - 1] / top)

    def run(self, program: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment, away from the source tree."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("LSE_", "PYTHON"))}
        command = [str(self.venv / "bin" / program), *args]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.place, env=env)

    def distributions(self) -> set[str]:
        """Which of our packages `lse plugins` reports, all of them in order."""
        done = self.run("lse", "plugins", "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["conflicts"] == []
        assert {(p["distribution"], p["error"]) for p in report["plugins"] if p["status"] != "ok"} == set()
        return {plugin["distribution"] for plugin in report["plugins"]}

    def lacks(self, command: str, package: str) -> None:
        """Check that a command of an absent package is not listed and that asking says what to install."""
        assert f"\n  {command} " not in self.run("lse", "--help").stdout
        done = self.run("lse", command)
        assert done.returncode == 2
        expected = f"'{command}' is part of {package}, which is not installed: pip install {package}"
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def test_core_then_dec_then_seg(environment: Environment) -> None:
    environment.install("lse-core")
    assert environment.distributions() == {"lse-core"}
    done = environment.run("python", "-c", IMPORT_CORE + ASK_FOR_EXTRA)
    assert done.returncode == 0, done.stderr
    environment.lacks("demo", "lse-train")
    environment.lacks("export", "lse-export")

    environment.install("lse-dec")
    assert environment.distributions() == {"lse-core", "lse-dec"}
    environment.lacks("export", "lse-export")

    environment.lacks("train", "lse-train")
    environment.lacks("data", "lse-data")

    environment.install("lse-seg")
    assert environment.distributions() == {"lse-core", "lse-dec", "lse-seg"}
    done = environment.run("python", "-c", "import lse_seg, mmseg.models")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^mmcv +(lite|full) ", environment.run("lse", "doctor").stdout, re.MULTILINE)


def test_data_then_train_that_brings_dec(environment: Environment) -> None:
    environment.install("lse-data")
    assert environment.distributions() == {"lse-core", "lse-data"}
    environment.lacks("train", "lse-train")
    done = environment.run("python", "-c", DRAW)
    assert done.returncode == 0, done.stderr
    done = environment.run("lse", "data", "make-objects", "--out", "objects", "--train", "1", "--test", "1")
    assert done.returncode == 0, done.stderr

    environment.install("lse-train")
    assert environment.distributions() == {"lse-core", "lse-data", "lse-dec", "lse-train"}
    done = environment.run("python", "-c", "import lse_train; lse_train.fit, lse_train.RunConfig")
    assert done.returncode == 0, done.stderr
    done = environment.run("lse", "demo", "--quick")
    assert done.returncode == 1
    assert "pip install 'lse-train[demo]'" in done.stderr


def test_export_without_dec(environment: Environment) -> None:
    environment.install("lse-export")
    assert environment.distributions() == {"lse-core", "lse-export"}
    environment.lacks("adapt", "lse-dec")


def test_soft_without_dec(environment: Environment) -> None:
    environment.install("lse-soft")
    assert environment.distributions() == {"lse-core", "lse-soft"}
    environment.lacks("adapt", "lse-dec")
    done = environment.run("python", "-c", SOFTEN)
    assert done.returncode == 0, done.stderr
    # models by name are timm's, which lse-soft does not bring
    done = environment.run("lse", "soften", "--list", "resnet18")
    assert done.returncode == 1
    assert "pip install timm" in done.stderr


def test_core_pulls_in_nothing_heavy_where_all_is_installed() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_CORE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
