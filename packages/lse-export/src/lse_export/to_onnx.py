"""Exporting adapted models to ONNX, with unrolled solvers and a dynamic batch axis."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from lse_core.atomic import check_target, replacing
from lse_core.errors import LSEError
from lse_export.errors import ExportError, first_line
from lse_export.metadata import describe
from lse_export.preprocess import Prepare, raw_pictures_of
from lse_export.quantize import quantize
from lse_export.trace import FIXED, Sizes, clean, trace
from lse_export.unroll import (
    Half,
    canonicalizers_of,
    check_example,
    check_precision,
    evaluating,
    halved,
    steps_of,
    with_steps,
)
from lse_export.verification import verify

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
        nodes_per_step: `canonicalizer_nodes` over the solver steps of all sites, 0 where none iterates.
        seconds: what the export took.
        phases: the parts of `seconds` that went into "trace", "simplify" and "write" (which checks the
            file too).
        metadata: what the file says about itself, see `lse_export.metadata.describe`.
        inputs: names of the inputs.
        outputs: names of the outputs in order.
    """

    path: Path
    opset: int
    ops: Counter[str]
    nodes: int
    canonicalizer_nodes: int
    nodes_per_step: float
    seconds: float
    metadata: dict[str, str]
    phases: dict[str, float] = field(default_factory=dict)
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
    dynamic_size: bool = False,
    overwrite: bool = False,
    allow_plain: bool = False,
    with_warps: bool = False,
    output_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    precision: str = "float32",
    half_io: bool = False,
    calibration: Tensor | None = None,
    preprocess: tuple[int, int] | None = None,
    picture_layout: str = "nhwc",
    external_data: bool = False,
) -> OnnxExport:
    """Write `model` as an ONNX file whose solvers are unrolled.

    The graph computes what the model computes in eval mode. Equal models, examples and versions
    give equal bytes; no path of the machine is in them. The model is left as it was.

    Args:
        model: what `lse_dec.adapt` returned (see `lse_export.unroll` for what is asked of it).
        example: (B, C, H, W) finite floating images as the model wants them. What does not vary of batch,
            height and width is fixed by it; the residuals in the metadata are measured on it.
        path: file to write.
        steps: solver steps to unroll; None takes the model's own.
        opset: ONNX opset, 18 or later.
        dynamic_batch: let the batch vary, as the axis "batch".
        dynamic_size: let height and width vary, as the axes "height" and "width", where the model takes any
            size (convolutional networks do, most transformers do not). The least and largest sizes that
            the graph holds for are in the metadata, "lse.height" and "lse.width", JSON [least, largest or
            null]: below `resolution` pixels a side of a site's features the model itself would not
            reduce them, which one graph cannot hold too.
        overwrite: replace an existing file.
        allow_plain: export a model without canonicalizers too.
        with_warps: further outputs for every site: "warp_x.SITE" and "warp_y.SITE" (B, N + 1), where
            the warp sends 0, 1/N, ..., 1, and "residual.SITE" (B,).
        output_names: names of the model's outputs; None: "logits", or "output_0", ... for several.
        class_names: written to the metadata; None takes those of the model's card.
        metadata: further metadata, any text by key.
        precision: "float32"; "float16", the model in half precision with float32 islands around warp
            coordinates and the solver; or "int8", layers with weights quantized statically.
        half_io: with float16, outputs too are float16 (floating inputs are float32 in any case).
        calibration: with int8, (n, C, H, W) images, as `example`, that ranges are measured on.
        preprocess: (height, width) of raw pictures; given, the file takes these as uint8 and resizes,
            crops and normalises them itself, as the model says (`lse_core.preprocess_of`).
        picture_layout: of raw pictures, "nhwc" or "nchw".
        external_data: keep weights in a file beside the graph, `path` + ".data", whatever their size;
            above 2 GiB they always are.

    Returns:
        An `OnnxExport`.

    Raises:
        ExportError: the model was never adapted, cannot be traced, or fixes its batch or size.
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
    precision = check_precision(precision)
    for name, given, needed in (("half_io", half_io, "float16"), ("calibration", calibration, "int8")):
        if given is not None and given is not False and precision != needed:
            raise LSEError(f"{name} is for precision {needed}; got {precision}: leave {name} out")
    if precision == "int8":
        if calibration is None:
            raise LSEError("int8 needs calibration images to measure ranges on; give calibration")
        if preprocess is not None:
            raise LSEError("int8 files take prepared images; leave preprocess out")
        calibration = check_example(model, calibration)
    if dynamic_size and preprocess is not None:
        raise LSEError("preprocess works for pictures of one size only; leave dynamic_size out")
    with with_steps(model, steps):
        example = check_example(model, example)
        inner = halved(model) if precision == "float16" else model
        entry: nn.Module = Half(inner, outputs=not half_io) if precision == "float16" else inner
        picture = example
        facts = {"lse.precision": precision}
        if preprocess is not None:
            raw = raw_pictures_of(model, preprocess, picture_layout)
            entry = nn.Sequential(Prepare(raw).to(example.device), entry)
            picture = torch.zeros((len(example), *raw.shape), dtype=torch.uint8, device=example.device)
            facts["lse.raw_pictures"] = json.dumps({"source": raw.source, "layout": raw.layout})
            facts["lse.preprocess"] = raw.preprocess.to_json()
        with evaluating(model, inner):
            facts = describe(model, example, opset=opset, class_names=class_names) | facts
            proto, sizes, phases = trace(
                inner,
                entry,
                picture,
                opset=opset,
                dynamic_batch=dynamic_batch,
                dynamic_size=dynamic_size,
                with_warps=with_warps,
                output_names=output_names,
            )
        facts |= {f"lse.{axis}": json.dumps(bounds) for axis, bounds in sizes.items()}
        rounds = sum(steps_of(model).values())
    clean(proto)
    if precision == "int8":
        assert calibration is not None
        proto = quantize(proto, calibration)
    facts = dict(sorted((facts | dict(metadata or {})).items()))
    onnx.helper.set_model_props(proto, facts)
    writing = time.perf_counter()
    with replacing(path, overwrite) as target:
        _write(proto, target, external_data)
        if dynamic_size:
            _check_sizes(target, model, example[:1] if dynamic_batch else example, sizes)
    phases["write"] = time.perf_counter() - writing
    graph = proto.graph
    return OnnxExport(
        path=path,
        opset=next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")),
        ops=Counter(node.op_type for node in graph.node),
        nodes=len(graph.node),
        canonicalizer_nodes=(inside := sum("canonicalizer" in node.name for node in graph.node)),
        nodes_per_step=round(inside / rounds, 1) if rounds else 0.0,
        seconds=time.perf_counter() - began,
        metadata=facts,
        phases=phases,
        inputs=[value.name for value in graph.input],
        outputs=[value.name for value in graph.output],
    )


def _write(proto: onnx.ModelProto, target: Path, external: bool) -> None:
    weights = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    large = external or weights > LARGEST_MESSAGE
    onnx.save_model(
        proto,
        target,
        save_as_external_data=large,
        location=f"{target.name}.data" if large else None,
        size_threshold=1024,  # shapes and axes stay inside, where checkers look for them
    )
    try:
        # by path, which also works for files above 2 GiB
        onnx.checker.check_model(str(target), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {first_line(error)}") from error


def _check_sizes(target: Path, model: nn.Module, example: Tensor, sizes: Sizes) -> None:
    """Refuse a file that is not the model at another height and at another width.

    A size that the tracer took for a constant leaves no trace in the axes' names.
    """
    for k, axis in enumerate(("height", "width")):
        size = list(example.shape[2:])
        size[k] = min(2 * size[k], sizes[axis][1] or 2 * size[k])
        other = nn.functional.interpolate(example, size=size, mode="bilinear", align_corners=True)
        where = f"at {size[0]} x {size[1]} pixels"
        try:
            found = verify(target, model, other, batch_sizes=(len(example),), edges=False, throw=False)
        except Exception as error:  # the model's, or ONNX Runtime's, which have no common class
            failed = f"the model, or its graph, cannot run {where}"
            raise ExportError(f"{failed}: {first_line(error)}; {FIXED}") from error
        if not found.ok:
            off = f"off by {found.relative:.2g} of the output's range"
            raise ExportError(f"the model fixes its {axis}: {where} its graph is {off}; {FIXED}")
