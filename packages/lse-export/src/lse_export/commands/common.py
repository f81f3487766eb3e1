"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)

size_option = click.option(
    "--size",
    nargs=2,
    type=click.IntRange(1),
    metavar="HEIGHT WIDTH",
    help="Size of the images.  [default: the model's]",
)
images_option = click.option(
    "--images",
    multiple=True,
    type=PATH,
    help="Picture or folder of pictures; repeat for several.  [default: two generated images]",
)
trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Import and call code that the model's folder names. Use it only for folders you trust.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def force_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add `--force`, which replaces `what`."""
    return click.option("--force", is_flag=True, help=f"Replace an existing {what}.")


def tensorrt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--trt-...` for ONNX Runtime's TensorRT provider.

    The command gets them as one argument: `tensorrt`, TensorrtOptions or None.
    """

    @click.option("--trt-cache", type=PATH, help="Folder in which TensorRT's engines are kept.")
    @click.option("--trt-fp16", is_flag=True, help="With provider tensorrt: allow half precision.")
    @click.option(
        "--trt-profile", multiple=True, metavar="INPUT=MIN:OPT:MAX",
        help="Smallest, usual and largest shape of an input, such as "
        "image=1x3x224x224:8x3x224x224:32x3x224x224; repeat for several.",
    )  # fmt: skip
    @wraps(command)
    def wrapped(
        *args: Any, trt_cache: Path | None, trt_fp16: bool, trt_profile: tuple[str, ...], **rest: Any
    ) -> Any:
        options = None
        if trt_cache or trt_fp16 or trt_profile:
            from lse_export.runtime import TensorrtOptions
            from lse_export.tensorrt.sidecar import parse_shapes

            shapes = dict(parse_shapes(text) for text in trt_profile) or None
            options = TensorrtOptions(cache=trt_cache, fp16=trt_fp16, profile=shapes)
        return command(*args, tensorrt=options, **rest)

    return wrapped
