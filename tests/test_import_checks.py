"""Each check of imports in `make lint` finds the fault it is there for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.fixture
def house(tmp_path):
    """A copy of all packages' sources, to be spoilt."""
    for folder in sorted((ROOT / "packages").iterdir()):
        copied = tmp_path / "packages" / folder.name
        shutil.copytree(folder / "src", copied / "src", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(folder / "pyproject.toml", copied)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(house, command, folder="."):
    sources = os.pathsep.join(str(path) for path in sorted((house / "packages").glob("*/src")))
    done = subprocess.run(
        command, cwd=house / folder, env=os.environ | {"PYTHONPATH": sources}, capture_output=True, text=True
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def append(house, file, code):
    with (house / "packages" / file).open("a", encoding="utf-8") as out:
        out.write(code)


@pytest.mark.parametrize(
    ("package", "other"),
    [
        ("lse-core", "lse_dec"),
        ("lse-data", "lse_dec"),
        ("lse-dec", "lse_data"),
        ("lse-train", "lse_export"),
        ("lse-seg", "lse_data"),
        ("lse-export", "lse_dec"),
        ("lse-soft", "lse_dec"),
    ],
)
def test_an_import_against_the_arrows_breaks_its_contract(house, package, other):
    name = package.replace("-", "_")
    append(house, f"{package}/src/{name}/extra.py", f"def f():\n    import {other}\n    return {other}\n")
    status, told = run(house, [BIN / "lint-imports", "--no-cache", "--no-logo"])
    assert status == 1
    assert f"{name}.extra -> {other}" in told


def test_a_cycle_of_imports_in_functions_and_for_types_is_found(house):
    core = "lse-core/src/lse_core"
    append(house, f"{core}/one.py", "def f():\n    import lse_core.two\n    return lse_core.two\n")
    types = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from lse_core.one import f\n"
    append(house, f"{core}/two.py", types)
    status, told = run(house, [sys.executable, ROOT / "tools" / "import_cycles.py"])
    assert status == 1
    assert "import cycle: lse_core.one -> lse_core.two -> lse_core.one" in told


def test_a_package_of_ours_imported_by_a_string_is_found(house):
    code = 'from importlib import import_module\n\nexport = import_module("lse_export.onnx")\n'
    append(house, "lse-soft/src/lse_soft/extra.py", code)
    status, told = run(house, [sys.executable, ROOT / "tools" / "import_cycles.py"])
    assert status == 1
    assert "extra.py:3: imports lse_export.onnx by a string" in told


def test_undeclared_and_unused_dependencies_are_found(house):
    append(house, "lse-core/src/lse_core/extra.py", "import scipy\n")
    project = house / "packages" / "lse-core" / "pyproject.toml"
    project.write_text(project.read_text().replace("dependencies = [", 'dependencies = ["onnx",', 1))
    status, told = run(house, [BIN / "deptry", "--no-ansi", "src"], "packages/lse-core")
    assert status == 1
    assert "'scipy' imported but it is a transitive dependency" in told
    assert "'onnx' defined as a dependency but not used" in told
