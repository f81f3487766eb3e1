"""Options for ONNX Runtime's TensorRT provider, shared by the commands that run files."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

__all__ = ["tensorrt_options"]


def tensorrt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--trt-...` to a command, which gets them as one argument: `tensorrt`, TensorrtOptions or None."""

    @click.option("--trt-cache", type=click.Path(path_type=Path), help="Folder that keeps engines.")
    @click.option("--trt-fp16", is_flag=True, help="Let TensorRT compute in half precision.")
    @click.option(
        "--trt-profile", multiple=True, metavar="INPUT=MIN:OPT:MAX",
        help="Shapes such as image=1x3x224x224:8x3x224x224:32x3x224x224; repeat for several inputs.",
    )  # fmt: skip
    @wraps(command)
    def wrapped(
        *args: Any, trt_cache: Path | None, trt_fp16: bool, trt_profile: tuple[str, ...], **rest: Any
    ) -> Any:
        options = None
        if trt_cache or trt_fp16 or trt_profile:
            from lse_export.runtime import TensorrtOptions
            from lse_export.tensorrt.profile import parse_shapes

            shapes = dict(parse_shapes(text) for text in trt_profile) or None
            options = TensorrtOptions(cache=trt_cache, fp16=trt_fp16, profile=shapes)
        return command(*args, tensorrt=options, **rest)

    return wrapped
