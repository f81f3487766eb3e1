"""What lse-export registers; heavy imports wait until a hook is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lse_core.plugins import hookimpl
from lse_export.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path

    import click


@hookimpl
def lse_commands() -> Mapping[str, click.Command]:
    """The command group `export`, and the commands that run what it made."""
    from lse_export.commands import export
    from lse_export.commands.running import bench, predict

    return {"bench": bench, "export": export, "predict": predict}


@hookimpl
def lse_loaders() -> Mapping[str, Callable[..., Any]]:
    """The loader of ONNX files, which any command may run that takes a model."""
    return {"onnx": _onnx}


@hookimpl
def lse_checks() -> Mapping[str, Callable[[], str]]:
    """The runtimes on this machine that can run exported files, one line each; none is started."""
    return {"runtimes": _runtimes, "tensorrt-rtx": _rtx}


def _onnx(path: Path, *, trust: bool = False) -> Any:
    """The model in an ONNX file; None for files of other names."""
    if path.suffix.lower() != ".onnx" or not path.is_file():
        return None
    from lse_export.onnx_model import OnnxModel

    return OnnxModel(path)


def _runtimes() -> str:
    import onnxruntime as ort
    import torch

    from lse_export.runtime import PROVIDERS
    from lse_export.tensorrt.library import load

    built = ", ".join(n for n, full in PROVIDERS.items() if full in ort.get_available_providers())
    try:
        tensorrt = load().title
    except ExportError:
        tensorrt = "no TensorRT"
    gpu = "a GPU" if torch.cuda.is_available() else "no GPU"
    return f"ONNX Runtime {ort.__version__} (built for {built}), {tensorrt}, {gpu}"


def _rtx() -> str:
    from lse_export.tensorrt.library import flavour_of, load
    from lse_export.tensorrt.rtx import known_capabilities

    try:
        title = load("rtx").title
    except ExportError:
        wanted = flavour_of("rtx")
        return f"no {wanted.title} ({wanted.install})"
    return f"{title}: builds for {', '.join(known_capabilities())}, no GPU needed"
