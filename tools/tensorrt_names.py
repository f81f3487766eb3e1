"""Write down which names a release of TensorRT's Python bindings has, on a machine without TensorRT.

The bindings are fetched as a wheel by pip and imported beside libraries that export the right symbols and do
nothing: enough to look at classes, not to build an engine. Needs gcc and Linux. "rtx" stands for the
TensorRT for RTX that is installed, which needs no such help. A name that is called, not read, ends in "()":
an attribute in one release may be a method in another.

    python tools/tensorrt_names.py 10.0.1 10.16.1.11 11.0.0.114 11.4.0.106 rtx
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "packages" / "lse-export" / "tests" / "tensorrt_names"
WHEEL = "tensorrt-cu12-bindings"
LIBRARIES = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin")
SYMBOLS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip
LOOK = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
home = trt.Builder.__module__.split(".")[0]
def spelled(owner, name):
    found = getattr(owner, name)
    return name + "()" if callable(found) and not isinstance(found, type) else name
names = [n for n in dir(trt) if not n.startswith("_")]
classes = {n: getattr(trt, n) for n in names if isinstance(getattr(trt, n), type)}
own = {n: c for n, c in classes.items() if c.__module__.startswith(home)}
inner = {f"{n}.{m}": getattr(c, m) for n, c in own.items() for m in dir(c)
         if not m.startswith("_") and isinstance(getattr(c, m), type)}
print(json.dumps({
    "functions": [n for n in names if n not in classes and callable(getattr(trt, n))],
    "classes": {n: [spelled(c, m) for m in dir(c) if not m.startswith("_")]
                for n, c in {**own, **inner}.items()},
    "version": trt.__version__,
}))
"""


def fetch(version: str, folder: Path) -> None:
    """Download the bindings and unpack them."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, f"{WHEEL}=={version}"], check=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)


def make_libraries(major: str, folder: Path) -> None:
    """Compile shared libraries whose functions return null."""
    source = folder / "empty.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for name in LIBRARIES:
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / f"{name}.so.{major}", source], check=True)


def names_of(version: str) -> dict[str, Any]:
    """Version, functions and classes of a release, each class with its public members."""
    if version == "rtx":
        return _look("tensorrt_rtx", {})
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        fetch(version, folder)
        make_libraries(version.split(".")[0], folder)
        return _look("tensorrt_bindings", {"PYTHONPATH": made, "LD_LIBRARY_PATH": made})


def _look(module: str, places: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, module],
        env=os.environ | places,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    """Write one file for each version asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("versions", nargs="+")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for asked in args.versions:
        names = names_of(asked)
        version, functions, classes = names["version"], names["functions"], names["classes"]
        rtx = asked == "rtx"
        wheel = "tensorrt-rtx-cu12" if rtx else WHEEL
        lines = [
            "# Public names of TensorRT's Python bindings, written by tools/tensorrt_names.py.",
            f'version = "{version}"',
            f"date = {datetime.date.today()}",
            f'source = "{wheel} {version}, imported beside {"its own" if rtx else "empty"} libraries"',
            f'functions = "{" ".join(sorted(functions))}"',
            "",
            "[classes]",
            *(f'"{name}" = "{" ".join(sorted(members))}"' for name, members in sorted(classes.items())),
        ]
        path = args.out / f"{'rtx-' if rtx else ''}{version}.toml"
        path.write_text("\n".join(lines) + "\n", "utf-8")
        print(f"{path.name}: {len(classes)} classes")


if __name__ == "__main__":
    main()
