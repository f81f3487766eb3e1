"""Build the wheels of all packages into dist/ and check them, or give all packages another version.

python tools/wheels.py                # builds dist/*.whl and runs `twine check`
python tools/wheels.py --set 0.2.0    # writes the version to every place that has it

The version is that of the root pyproject.toml. Packages need one another in the very same version.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = re.compile(
    r'(^(?:__version__|version) = "|^version: |"lse-[a-z]+(?:\[[^"\]]*\])?==)([^"\s]+)', re.MULTILINE
)
"""What stands before a version, and the version."""


def common() -> str:
    """The version of all packages."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def files() -> Iterator[Path]:
    """The files that hold the version."""
    yield from (ROOT / "pyproject.toml", ROOT / "CITATION.cff")
    yield from sorted(ROOT.glob("packages/*/pyproject.toml"))
    yield from sorted(ROOT.glob("packages/*/src/*/__init__.py"))


def wrong(version: str) -> list[str]:
    """Places that hold another version, as "file: what stands there"."""
    return [
        f"{path.relative_to(ROOT)}: {found[0].strip()}"
        for path in files()
        for found in PLACE.finditer(path.read_text(encoding="utf-8"))
        if found[2] != version
    ]


def set_version(version: str) -> None:
    """Write `version` to every place."""
    for path in files():
        text = path.read_text(encoding="utf-8")
        path.write_text(PLACE.sub(lambda found: found[1] + version, text), encoding="utf-8")


def build(out: Path) -> None:
    """Build and check the wheels; the folder holds nothing else afterwards."""
    shutil.rmtree(out, ignore_errors=True)
    here = Path(sys.executable).parent
    command = [here / "uv", "build", "--wheel", "--all-packages", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-p", sys.executable, "-o", out], cwd=ROOT, check=True)
    wheels = sorted(out.glob("*.whl"))
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *wheels], check=True)


def main() -> None:
    """Build, or set the version."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--set", metavar="X.Y.Z", dest="version", help="the next version of all packages")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the wheels")
    options = parser.parse_args()
    if options.version is not None:
        if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", options.version):
            sys.exit(f"error: a version reads like 0.2.0 or 0.2.0rc1; got {options.version!r}")
        set_version(options.version)
    elif found := wrong(common()):
        sys.exit(f"error: not version {common()}: {'; '.join(found)}; run with --set")
    else:
        build(options.out)


if __name__ == "__main__":
    main()
