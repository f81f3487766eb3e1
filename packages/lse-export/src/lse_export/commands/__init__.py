"""The `lse export` group; each command imports what is heavy when it runs."""

from __future__ import annotations

import click

from lse_export.commands.check import check
from lse_export.commands.onnx import onnx
from lse_export.commands.tensorrt import tensorrt
from lse_export.commands.triton import triton
from lse_export.commands.verify import verify

__all__ = ["export"]


@click.group()
def export() -> None:
    """Export adapted models and prove the result equal.

    \b
    Example:
      lse export onnx runs/model --out model.onnx
      lse export verify model.onnx runs/model
      lse export check model.onnx --target tensorrt10
    """


for _command in (onnx, verify, check, tensorrt, triton):
    export.add_command(_command)
