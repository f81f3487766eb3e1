"""Tracing a model into an ONNX graph, with torch's own reports kept off the terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_export.errors import ExportError
from lse_export.simplify import simplify
from lse_export.unroll import Unrolled, recording

__all__ = ["trace"]


def trace(
    model: nn.Module,
    entry: nn.Module,
    example: Tensor,
    *,
    opset: int,
    dynamic_batch: bool,
    with_warps: bool,
    output_names: Sequence[str] | None,
) -> onnx.ModelProto:
    """The graph of `entry` in ONNX, simplified, its input called "image".

    Args:
        model: the model inside `entry`, whose canonicalizers answer for `with_warps`.
        entry: takes `example`, gives what the model gives.
        example: a batch of images.
        opset: ONNX opset.
        dynamic_batch: let the first axis vary, as "batch".
        with_warps: outputs for every site's warp and residual too.
        output_names: of the model's outputs; None: "logits", or "output_0", ....

    Raises:
        ExportError: the model cannot be traced, or fixes its batch.
        LSEError: as many output names as the model has not.
    """
    if dynamic_batch and len(example) == 1:
        # torch treats an axis of size 1 as fixed
        example = example.expand(2, *example.shape[1:]).contiguous()
    shapes = ({0: torch.export.Dim("batch", min=1, max=2**20)},) if dynamic_batch else None
    with recording(model) as record:
        wrapped = Unrolled(entry, record if with_warps else None).eval()
        plain = len(wrapped(example)) - len(wrapped.extra_names())
        names = list(output_names or (["logits"] if plain == 1 else [f"output_{i}" for i in range(plain)]))
        if len(names) != plain:
            raise LSEError(f"the model has {plain} outputs; got {len(names)} output names")
        try:
            with _quiet():
                program = torch.onnx.export(
                    wrapped,
                    (example,),
                    dynamo=True,
                    opset_version=opset,
                    dynamic_shapes=shapes,
                    input_names=["image"],
                    output_names=[*names, *wrapped.extra_names()],
                    optimize=False,  # see `simplify`
                    verbose=False,
                )
                assert program is not None
                program.model = simplify(program.model)
        except Exception as error:
            raise ExportError(_why(error)) from error
    proto = program.model_proto
    first = proto.graph.input[0].type.tensor_type.shape.dim[0]
    if dynamic_batch and first.dim_param != "batch":
        raise ExportError("the model fixes its batch size; export it with dynamic_batch=False")
    return proto


def _why(error: BaseException) -> str:
    """One line on why tracing failed; torch's own message is pages long."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    name = type(cause).__name__
    lines = [line for line in str(cause).splitlines() if line.strip()]
    text = lines[0].strip() if lines else ""
    if name == "GuardOnDataDependentSymNode" or "data-dependent" in text.lower():
        return (
            "the model branches on values of its tensors, which no fixed graph can hold; a solver must "
            f"take a fixed number of steps ({name}: {text[:200]})"
        )
    return f"torch cannot trace the model ({name}: {text[:300]})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's progress report and advice to its own developers off the terminal.

    Stack traces, which `clean` strips again, are a sixth of the time of tracing.
    """
    # the last writes whole graphs as text for whoever captures logs, which takes longer than tracing
    names = ("torch.onnx", "torch.export", "onnxscript", "torch.__trace")
    loggers: list[Any] = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    traces: Any = getattr(torch.fx, "config", None)
    before = getattr(traces, "do_not_emit_stack_traces", None)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            if before is not None:
                traces.do_not_emit_stack_traces = True
            yield
        finally:
            if before is not None:
                traces.do_not_emit_stack_traces = before
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
