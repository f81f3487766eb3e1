"""Print what this machine is: its GPU, driver, libraries, compiler; and write it as JSON into a folder."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = (
    "torch", "triton", "timm", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript", "tensorrt",
    "torchdeq", "lse-core", "lse-dec",
)  # fmt: skip


def facts() -> dict[str, str]:
    """By what they are facts of."""
    found = {
        "processor": f"{os.cpu_count()} cores, {platform.machine()}",
        "Python": platform.python_version(),
        "C compiler": shutil.which("gcc") or shutil.which("cc") or "none, which torch.compile needs",
    }
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        found["GPU"] = (
            f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}, {gpu.total_memory / 2**30:.0f} GiB, "
            f"{gpu.multi_processor_count} multiprocessors"
        )
        found["CUDA of torch"] = str(torch.version.cuda)
        found["driver"] = _driver()
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    found = facts()
    print("\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in found.items())]))
    Path(sys.argv[1], "machine.json").write_text(json.dumps(found), encoding="utf-8")
