"""Adapted models to ONNX: the solver unrolled, the batch dynamic, the file whole or absent."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_export.atomic import check_target, replacing
from lse_export.cleanup import clean
from lse_export.errors import ExportError
from lse_export.metadata import describe
from lse_export.unroll import (
    Unrolled,
    canonicalizers_of,
    check_example,
    evaluating,
    recording,
    with_steps,
)

__all__ = ["OnnxExport", "export_onnx"]

OLDEST_OPSET = 18
# protobuf cannot hold more than 2 GiB in one message; weights then go to a file beside the graph
LARGEST_MESSAGE = 2**31 - 2**20


@dataclass(frozen=True)
class OnnxExport:
    """What an export made.

    Attributes:
        path: the file written; `path` + ".data" holds the weights where they exceed 2 GiB.
        opset: its opset.
        ops: how many nodes of each operator.
        nodes: all nodes.
        canonicalizer_nodes: those that came from canonicalizers.
        seconds: what the export took.
        metadata: what the file says about itself, see `lse_export.metadata.describe`.
        inputs: names of the inputs.
        outputs: names of the outputs in order.
    """

    path: Path
    opset: int
    ops: Counter[str]
    nodes: int
    canonicalizer_nodes: int
    seconds: float
    metadata: dict[str, str]
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def export_onnx(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    steps: int | None = None,
    opset: int = OLDEST_OPSET,
    dynamic_batch: bool = True,
    overwrite: bool = False,
    allow_plain: bool = False,
    with_warps: bool = False,
    output_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> OnnxExport:
    """Write `model` as an ONNX file whose solvers are unrolled.

    The graph computes what the model computes in eval mode. Equal models, examples and versions
    give equal bytes; no path of the machine is in them. The model is left as it was.

    Args:
        model: what `lse_dec.adapt` returned (see `lse_export.unroll` for what is asked of it).
        example: (B, C, H, W) finite floating images as the model wants them. Height, width and,
            unless `dynamic_batch`, B are fixed by it; the residuals in the metadata are measured on it.
        path: file to write.
        steps: solver steps to unroll; None takes the model's own.
        opset: ONNX opset, 18 or later.
        dynamic_batch: let the batch vary, as the axis "batch".
        overwrite: replace an existing file.
        allow_plain: export a model without canonicalizers too.
        with_warps: further outputs for every site: "warp_x.SITE" and "warp_y.SITE" (B, N + 1), where
            the warp sends 0, 1/N, ..., 1, and "residual.SITE" (B,).
        output_names: names of the model's outputs; None: "logits", or "output_0", ... for several.
        class_names: written to the metadata.
        metadata: further metadata, any text by key.

    Returns:
        An `OnnxExport`.

    Raises:
        ExportError: the model was never adapted, or cannot be traced.
        ShapeError, DTypeError, NotFiniteError: the example is no batch of finite images.
        OutputError: the file exists or cannot be written. Nothing is left half-written.
        LSEError: a setting out of range.
    """
    began = time.perf_counter()
    path = Path(path)
    check_target(path, overwrite)
    if opset < OLDEST_OPSET:
        raise LSEError(f"opset must be at least {OLDEST_OPSET}; got {opset!r}")
    if not allow_plain and not canonicalizers_of(model):
        raise ExportError(
            f"{type(model).__name__} has no canonicalizers: adapt it with lse_dec.adapt first, "
            "or pass allow_plain=True to export it as it is"
        )
    with with_steps(model, steps):
        example = check_example(model, example)
        with evaluating(model):
            facts = describe(model, example, opset=opset, class_names=class_names) | dict(metadata or {})
            proto = _trace(model, example, opset, dynamic_batch, with_warps, output_names)
    clean(proto)
    onnx.helper.set_model_props(proto, facts)
    with replacing(path, overwrite) as target:
        _save(proto, target)
        _check(target)
    graph = proto.graph
    return OnnxExport(
        path=path,
        opset=_opset(proto),
        ops=Counter(node.op_type for node in graph.node),
        nodes=len(graph.node),
        canonicalizer_nodes=sum("canonicalizer" in node.name for node in graph.node),
        seconds=time.perf_counter() - began,
        metadata=facts,
        inputs=[value.name for value in graph.input],
        outputs=[value.name for value in graph.output],
    )


def _trace(
    model: nn.Module,
    example: Tensor,
    opset: int,
    dynamic_batch: bool,
    with_warps: bool,
    output_names: Sequence[str] | None,
) -> onnx.ModelProto:
    if dynamic_batch and len(example) == 1:
        # torch treats an axis of size 1 as fixed
        example = example.expand(2, -1, -1, -1).contiguous()
    shapes = ({0: torch.export.Dim("batch", min=1, max=2**20)},) if dynamic_batch else None
    with recording(model) as record:
        wrapped = Unrolled(model, record if with_warps else None).eval()
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
                    verbose=False,
                )
        except Exception as error:
            raise ExportError(_why(error)) from error
    assert program is not None
    proto = program.model_proto
    first = proto.graph.input[0].type.tensor_type.shape.dim[0]
    if dynamic_batch and first.dim_param != "batch":
        raise ExportError("the model fixes its batch size; export it with dynamic_batch=False")
    return proto


def _save(proto: onnx.ModelProto, target: Path) -> None:
    weights = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    large = weights > LARGEST_MESSAGE
    onnx.save_model(
        proto,
        target,
        save_as_external_data=large,
        location=f"{target.name}.data" if large else None,
        size_threshold=1024,
    )


def _check(target: Path) -> None:
    try:
        # by path, which also works for files above 2 GiB
        onnx.checker.check_model(str(target), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error


def _opset(proto: onnx.ModelProto) -> int:
    return next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))


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
    """Keep torch's progress report and advice to its own developers off the terminal."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
