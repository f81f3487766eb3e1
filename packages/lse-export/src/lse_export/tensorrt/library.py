"""Is TensorRT here, which flavour and release, and on which GPU?"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch

from lse_core.errors import unknown_name
from lse_export.errors import ExportError

__all__ = ["FLAVOURS", "Flavour", "flavour_of", "major_of", "require_gpu", "require_tensorrt"]


@dataclass(frozen=True)
class Flavour:
    """A product line of TensorRT.

    Attributes:
        name: a key of `FLAVOURS`, and the extra of lse-export that installs it.
        title: its name for people.
        module: its Python module.
        majors: major releases that the code is written for.
    """

    name: str
    title: str
    module: str
    majors: tuple[int, ...]

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'lse-export[{self.name}]'"


FLAVOURS = {
    "tensorrt": Flavour("tensorrt", "TensorRT", "tensorrt", (10, 11)),
    "rtx": Flavour("rtx", "TensorRT for RTX", "tensorrt_rtx", (1,)),
}
"""By name. Engines of one are nothing to the other."""


def flavour_of(name: str) -> Flavour:
    """The flavour called `name`; UnknownNameError for any other."""
    if name not in FLAVOURS:
        raise unknown_name("flavour of TensorRT", name, FLAVOURS)
    return FLAVOURS[name]


def require_tensorrt(flavour: str = "tensorrt") -> str:
    """Import TensorRT; returns its version, such as "10.16.1.11", or "1.7.1.116" of TensorRT for RTX.

    Raises:
        ExportError: it is not installed, does not load, or is of another major release.
        UnknownNameError: no such flavour.
    """
    wanted = flavour_of(flavour)
    if find_spec(wanted.module) is None:
        raise ExportError(f"{wanted.title} is not installed: {wanted.install}")
    try:
        version = str(import_module(wanted.module).__version__)
    except (ImportError, OSError, AttributeError) as error:  # its libraries are missing or do not match
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(f"{wanted.title} is installed but does not load ({text[:200]})") from error
    if major_of(version) not in wanted.majors:
        majors = " or ".join(map(str, wanted.majors))
        raise ExportError(f"{wanted.title} {version} is here, but {majors} is needed")
    return version


def major_of(version: str) -> int:
    """Major release of a version; 0 where it cannot be read."""
    first = version.split(".")[0]
    return int(first) if first.isdigit() else 0


def require_gpu(device: torch.device | str | None = None) -> torch.device:
    """Return the CUDA device asked for with its index; None means torch's current one.

    Raises:
        ExportError: no such device, or no GPU at all.
    """
    if not torch.cuda.is_available():
        raise ExportError("TensorRT needs an NVIDIA GPU, and torch finds none here")
    found = torch.device("cuda" if device is None else device)
    if found.type != "cuda":
        raise ExportError(f"TensorRT runs on CUDA devices only; got {str(found)!r}")
    index = torch.cuda.current_device() if found.index is None else found.index
    if index >= torch.cuda.device_count():
        raise ExportError(f"there is no device {str(found)!r}; torch finds {torch.cuda.device_count()}")
    return torch.device("cuda", index)
