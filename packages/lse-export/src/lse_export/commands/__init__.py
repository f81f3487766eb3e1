"""The `lse export` group; each command imports what is heavy when it runs."""

from __future__ import annotations

import click

from lse_export.commands.checking import check, verify
from lse_export.commands.deploying import tensorrt, triton
from lse_export.commands.onnx import onnx

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
