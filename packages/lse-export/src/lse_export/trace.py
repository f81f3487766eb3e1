"""Tracing a model into an ONNX graph, with torch's own reports kept off the terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import torch
import torch.fx.config
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_export.errors import ExportError, first_line
from lse_export.simplify import simplify
from lse_export.unroll import Unrolled, recording

__all__ = ["FIXED", "Sizes", "timed", "trace"]

Sizes = dict[str, tuple[int, int | None]]
"""Least and largest (None: any) size by the name of the axis."""

FIXED = "export it at one size, without dynamic_size"


def trace(
    model: nn.Module,
    entry: nn.Module,
    example: Tensor,
    *,
    opset: int,
    dynamic_batch: bool,
    dynamic_size: bool = False,
    with_warps: bool,
    output_names: Sequence[str] | None,
) -> tuple[onnx.ModelProto, Sizes, dict[str, float]]:
    """The graph of `entry` in ONNX, simplified, its input called "image".

    Args:
        model: the model inside `entry`, whose canonicalizers answer for `with_warps`.
        entry: takes `example`, gives what the model gives.
        example: a batch of images.
        opset: ONNX opset.
        dynamic_batch: let the first axis vary, as "batch".
        dynamic_size: let height and width vary, as "height" and "width".
        with_warps: outputs for every site's warp and residual too.
        output_names: of the model's outputs; None: "logits", or "output_0", ....

    Returns:
        The graph, with `dynamic_size` the least and largest "height" and "width" it holds for, and the
        seconds that "trace" and "simplify" took.

    Raises:
        ExportError: the model cannot be traced, or fixes its batch or size.
        LSEError: the number of output names is not that of the model's outputs.
    """
    if dynamic_batch and len(example) == 1:
        # torch treats an axis of size 1 as fixed
        example = example.expand(2, *example.shape[1:]).contiguous()
    shapes: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=2**20)} if dynamic_batch else {}
    if dynamic_size:  # by name alone: torch then finds the bounds itself instead of wanting to be told them
        shapes |= {2: "height", 3: "width"}
    seconds: dict[str, float] = {}
    with recording(model) as record:
        wrapped = Unrolled(entry, record if with_warps else None).eval()
        plain = len(wrapped(example)) - len(wrapped.extra_names())
        names = list(output_names or (["logits"] if plain == 1 else [f"output_{i}" for i in range(plain)]))
        if len(names) != plain:
            raise LSEError(f"the model has {plain} outputs; got {len(names)} output names")
        try:
            with _quiet():
                with timed(seconds, "trace"):
                    program = torch.onnx.export(
                        _any_size(wrapped, example, shapes) if dynamic_size else wrapped,
                        (example,),
                        dynamo=True,
                        opset_version=opset,
                        dynamic_shapes=(shapes,) if shapes else None,
                        input_names=["image"],
                        output_names=[*names, *wrapped.extra_names()],
                        optimize=False,  # see `simplify`
                        verbose=False,
                    )
                assert program is not None
                with timed(seconds, "simplify"):
                    program.model = simplify(program.model)
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            if dynamic_size and (axes := _fixed_axis(cause)):
                raise ExportError(f"the model fixes its {axes}; {FIXED}") from error
            raise ExportError(_why(cause)) from error
    proto = program.model_proto
    dims = [axis.dim_param for axis in proto.graph.input[0].type.tensor_type.shape.dim]
    if dynamic_batch and dims[0] != "batch":
        raise ExportError("the model fixes its batch size; export it with dynamic_batch=False")
    if dynamic_size and dims[2:] != ["height", "width"]:
        raise ExportError(f"the model fixes its height or width; {FIXED}")
    return proto, _bounds(program) if dynamic_size else {}, seconds


@contextlib.contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Note the wall-clock time of the block under `phase`."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] = time.perf_counter() - began


def _any_size(model: nn.Module, example: Tensor, shapes: dict[int, Any]) -> torch.export.ExportedProgram:
    # torch.onnx.export, where this fails, tries a second way that may take the size for a constant
    found = {k: torch.export.Dim.DYNAMIC if isinstance(axis, str) else axis for k, axis in shapes.items()}
    return torch.export.export(model, (example,), dynamic_shapes=(found,), strict=False)


def _bounds(program: torch.onnx.ONNXProgram) -> Sizes:
    """What torch found out while tracing: from where to where the graph's branches stay as they are."""
    exported = program.exported_program
    assert exported is not None
    (name,) = exported.graph_signature.user_inputs
    image = next(node for node in exported.graph.nodes if node.name == name)
    found: Sizes = {}
    for axis, size in zip(("height", "width"), image.meta["val"].shape[2:], strict=True):
        bounds = exported.range_constraints[size.node.expr]
        found[axis] = (max(1, int(bounds.lower)), int(bounds.upper) if bounds.upper.is_Integer else None)
    return found


def _fixed_axis(error: BaseException) -> str | None:
    """What torch says of height or width where the model's code makes a constant of it."""
    # "inputs[0].shape[2]" or "L['image'].size()[2]", depending on how torch found out
    axis = re.compile(r"(?:shape|size\(\))\[([23])\]")
    fixed = {m[1] for line in str(error).splitlines() if (m := axis.search(line))}
    names = [name for k, name in (("2", "height"), ("3", "width")) if k in fixed]
    return " and ".join(names) or None


def _why(error: BaseException) -> str:
    """One line on why tracing failed; torch's own message is pages long."""
    name, text = type(error).__name__, first_line(error, 300)
    if name == "GuardOnDataDependentSymNode" or "data-dependent" in text.lower():
        return (
            "the model branches on values of its tensors, which no fixed graph can hold; a solver must "
            f"take a fixed number of steps ({name}: {text})"
        )
    return f"torch cannot trace the model ({name}: {text})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's progress report and advice to its own developers off the terminal.

    Stack traces, which `clean` strips again, are a sixth of the time of tracing.
    """
    # the last writes whole graphs as text for whoever captures logs, which takes longer than tracing
    names = ("torch.onnx", "torch.export", "onnxscript", "torch.__trace")
    loggers: list[Any] = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    traces: Any = torch.fx.config
    before = getattr(traces, "do_not_emit_stack_traces", False)
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        traces.do_not_emit_stack_traces = True
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        traces.do_not_emit_stack_traces = before
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
