"""Is TensorRT here, which release, and on which GPU?"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch

from lse_export.errors import ExportError

__all__ = ["MAJORS", "major_of", "require_gpu", "require_tensorrt"]

MAJORS = (10, 11)
"""Major releases that the code is written for."""


def require_tensorrt() -> str:
    """Import TensorRT; returns its version, such as "10.16.1.11".

    Raises:
        ExportError: it is not installed, does not load, or is of another major release.
    """
    if find_spec("tensorrt") is None:
        raise ExportError("TensorRT is not installed: pip install 'lse-export[tensorrt]'")
    try:
        version = str(import_module("tensorrt").__version__)
    except (ImportError, OSError, AttributeError) as error:  # its libraries are missing or do not match
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(f"TensorRT is installed but does not load ({text[:200]})") from error
    if major_of(version) not in MAJORS:
        raise ExportError(f"TensorRT {version} is here, but {' or '.join(map(str, MAJORS))} is needed")
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
