"""Checking whether mmsegmentation can run, without importing it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from packaging.specifiers import SpecifierSet

from lse_core.errors import LSEError

__all__ = ["InstallationError", "Mmcv", "check", "find_mmcv", "report"]

REQUIRED = {"mmsegmentation": ">=1.2.2,<1.3", "mmengine": ">=0.10.7,<0.11"}
MMCV = ">=2.0.0,<2.2"
"""What mmsegmentation 1.2.2 accepts."""


class InstallationError(LSEError, ImportError):
    """mmsegmentation or what it needs is missing or of a version that does not work."""


@dataclass(frozen=True)
class Mmcv:
    """The mmcv of this environment.

    Attributes:
        version: its version.
        folder: where it lies.
        compiled: the file with its compiled ops; None for mmcv-lite, which has none.
    """

    version: str
    folder: Path
    compiled: Path | None


def find_mmcv() -> Mmcv:
    """Look for mmcv, full or lite.

    A full one is told by its compiled file, not by its name: both distributions install the same package.

    Raises:
        InstallationError: there is none.
    """
    spec = find_spec("mmcv")
    if spec is None or spec.origin is None:
        raise InstallationError("mmcv is not installed: pip install 'mmcv-lite>=2.1,<2.2'")
    folder = Path(spec.origin).parent
    compiled = PathFinder.find_spec("_ext", [str(folder)])
    origin = compiled.origin if compiled is not None else None
    names = ("mmcv", "mmcv-lite") if origin else ("mmcv-lite", "mmcv")
    version = next((v for v in map(_version, names) if v is not None), None)
    if version is None:
        raise InstallationError(f"{folder} belongs to no installed mmcv: pip install 'mmcv-lite>=2.1,<2.2'")
    return Mmcv(version, folder, Path(origin) if origin else None)


def check() -> Mmcv:
    """Check that mmsegmentation and what it needs are here and fit each other; imports none of it.

    Raises:
        InstallationError: something is missing or of a wrong version; says what to install.
    """
    for name, wanted in REQUIRED.items():
        version = _version(name)
        if version is None:
            raise InstallationError(f"{name} is not installed: pip install '{name}{wanted}'")
        if version not in SpecifierSet(wanted, prereleases=True):
            raise InstallationError(f"{name} {version} does not work here: pip install '{name}{wanted}'")
    mmcv = find_mmcv()
    if mmcv.version not in SpecifierSet(MMCV, prereleases=True):
        raise InstallationError(
            f"mmsegmentation refuses mmcv {mmcv.version}: pip install 'mmcv-lite>=2.1,<2.2', "
            f"or build a full mmcv{MMCV}"
        )
    if find_spec("pkg_resources") is None:
        raise InstallationError(
            "mmengine needs older setuptools for pkg_resources: pip install 'setuptools<81'"
        )
    return mmcv


def report() -> str:
    """One line for `lse doctor`; raises as `check` does."""
    mmcv = check()
    if mmcv.compiled is None:
        return f"lite {mmcv.version}: models that call compiled ops do not run"
    return f"full {mmcv.version}, compiled ops in {mmcv.compiled.name}"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
