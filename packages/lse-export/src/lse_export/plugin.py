"""What lse-export registers; heavy imports wait until a hook is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lse_core.plugins import hookimpl
from lse_export.errors import ExportError

if TYPE_CHECKING:
    import click


@hookimpl
def lse_commands() -> Mapping[str, click.Command]:
    """The command group `export`, and the commands that run what it made."""
    from lse_export.commands import export
    from lse_export.commands.running import bench, predict

    return {"bench": bench, "export": export, "predict": predict}


@hookimpl
def lse_checks() -> Mapping[str, Callable[[], str]]:
    """What exported files can run on here, each in one line; nothing of it is started."""
    return {"runtimes": _runtimes, "tensorrt-rtx": _rtx}


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
