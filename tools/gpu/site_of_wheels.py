"""A temporary folder of packages, made of wheels without a network, before what the machine has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

__all__ = ["install"]

OURS = "lse-"


def install(folders: Sequence[Path], site: Path) -> list[str]:
    """Install wheels into `site`, and let this process and those that it starts find it first.

    Args:
        folders: with wheels. Ours are always taken, others where their distribution is missing here: what the
            machine has fits its GPU, such as torch itself. Dependencies are not looked at.
        site: folder to make.

    Returns:
        File names of what was installed.

    Raises:
        SystemExit: there is no wheel of ours, or pip refuses one; in one line.
    """
    found = {_name(wheel): wheel for folder in folders for wheel in sorted(folder.glob("*.whl"))}
    chosen = [wheel for name, wheel in found.items() if name.startswith(OURS) or not _here(name)]
    if not any(name.startswith(OURS) for name in found):
        sys.exit(
            f"error: no wheel of ours in {', '.join(map(str, folders))}; `make wheels` builds them into dist/"
        )
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    done = subprocess.run(
        [*command, "--target", str(site), *map(str, chosen)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        sys.exit(f"error: pip cannot install the wheels: {said[-1] if said else done.returncode}")
    sys.path.insert(0, str(site))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), *([before] if before else [])])
    return [wheel.name for wheel in chosen]


def _name(wheel: Path) -> str:
    return re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()


def _here(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
