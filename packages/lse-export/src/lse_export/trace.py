"""Tracing a model into an ONNX graph that is small, and the same bytes for the same model."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import torch
import torch.fx.config
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules import common as rules
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_core.moved import moved_names
from lse_export.errors import ExportError, first_line
from lse_export.unroll import Unrolled, recording

__all__ = ["FIXED", "Sizes", "clean", "simplify", "trace"]
__getattr__ = moved_names(__name__)

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
        opset: this and the rest as in `lse_export.export_onnx`.
        dynamic_batch: see there.
        dynamic_size: see there.
        with_warps: see there.
        output_names: see there.

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
    with recording(model) as record:
        wrapped = Unrolled(entry, record if with_warps else None).eval()
        plain = len(wrapped(example)) - len(wrapped.extra_names())
        names = list(output_names or (["logits"] if plain == 1 else [f"output_{i}" for i in range(plain)]))
        if len(names) != plain:
            raise LSEError(f"the model has {plain} outputs, but {len(names)} output names were given")
        try:
            with _quiet():
                began = time.perf_counter()
                source: Any = wrapped
                if dynamic_size:
                    # where this fails, torch.onnx.export tries another way, which can fix the size
                    free = shapes | dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
                    source = torch.export.export(wrapped, (example,), dynamic_shapes=(free,), strict=False)
                program = torch.onnx.export(
                    source,
                    (example,),
                    dynamo=True,
                    opset_version=opset,
                    dynamic_shapes=(shapes,) if shapes else None,
                    input_names=["image"],
                    output_names=[*names, *wrapped.extra_names()],
                    optimize=False,  # see `simplify`
                    verbose=False,
                )
                traced = time.perf_counter()
                assert program is not None
                program.model = simplify(program.model)
                seconds = {"trace": traced - began, "simplify": time.perf_counter() - traced}
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
    key = "do_not_emit_stack_traces"
    traces: Any = torch.fx.config
    with contextlib.ExitStack() as before:
        for logger in map(logging.getLogger, names):
            before.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        before.callback(setattr, traces, key, getattr(traces, key, False))
        setattr(traces, key, True)
        before.enter_context(warnings.catch_warnings())
        before.enter_context(contextlib.redirect_stdout(io.StringIO()))
        warnings.simplefilter("ignore")
        yield


# fmt: off
RULES = tuple(getattr(rules, f"{name}_rule") for name in (
    "mul_by_1", "add_0", "sub_0", "div_by_1", "one_reshape_matmul_reshape", "two_reshapes_matmul_reshape",
    "cast_constant_of_shape", "collapse_slice", "collapse_slice2", "materialize_reshape_shape",
    "min_min", "max_max", "min_max", "max_min", "successive_clip_relu", "successive_relu_clip",
    "successive_relu", "successive_clip", "cast_cast", "no_op_cast", "no_op_expand", "flatten_to_reshape",
    "reshape_reshape", "no_op_transpose", "transpose_transpose", "unsqueeze_unsqueeze",
    "squeeze_reshape_1d", "normalize_pad_format_conv", "fuse_pad_into_conv", "fuse_batchnorm_into_conv",
    "fuse_batchnorm_into_conv_transpose", "fuse_batchnorm_into_gemm", "remove_optional_bias_from_conv",
    "remove_optional_bias_from_conv_transpose", "remove_optional_bias_from_gemm",
))
# fmt: on
"""onnxscript's own choice, without rules for what no network in eval mode has, and without `slice_split`: a
pattern of two outputs is looked for by listing the whole graph again at every node, most of the time of long
solves."""

ROUNDS = 2
"""What one round of rules leaves, the next can still fold; a third finds nothing."""

_SCOPES = "pkg.torch.onnx.name_scopes"


def simplify(model: ir.Model) -> ir.Model:
    """Drop what a graph computes twice, for nothing, or from constants alone; in place where it can.

    Equal graphs give equal graphs. An unrolled solver repeats itself: equal subexpressions go first,
    which leaves a third of the nodes for the slow passes (onnxscript's own order folds and rewrites all).

    Args:
        model: as `torch.onnx.export(..., optimize=False)` leaves it in `.model`.
    """
    once = ir.passes.Sequential(
        common.InlinePass(),
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
    )
    model = once(model).model
    for _ in range(ROUNDS):
        fold_constants(model)
        model = rewrite(model, RULES)
    end = ir.passes.Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    model = end(model).model
    _ask_sizes_of_casts(model)
    return model


def _ask_sizes_of_casts(model: ir.Model) -> None:
    """Read the sizes of raw pictures (uint8) off what they are cast to, in place.

    TensorRT 10 and 11 list no uint8 among the types of Shape.
    """
    for value in model.graph.inputs:
        users = [use.node for use in value.uses()]
        casts = [node for node in users if node.op_type == "Cast"]
        shapes = [node for node in users if node.op_type == "Shape"]
        if value.dtype != ir.DataType.UINT8 or not casts or not shapes:
            continue
        model.graph.remove(casts[0])
        model.graph.insert_before(model.graph[0], casts[0])
        for node in shapes:
            node.replace_input_with(0, casts[0].outputs[0])


def clean(proto: onnx.ModelProto) -> None:
    """Name every node after the module it came from and remove torch's notes from the graph, in place.

    torch notes stack traces with the paths of files; a node's new name, `module.path/Op_number`, keeps
    what is useful in them.
    """
    counts: Counter[str] = Counter()
    for node in proto.graph.node:
        stem = f"{_scope(node)}/{node.op_type}".lstrip("/")
        node.name = f"{stem}_{counts[stem]}"
        counts[stem] += 1
    graph = proto.graph
    noted = [proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for item in noted:
        item.doc_string = ""
        del item.metadata_props[:]


def _scope(node: onnx.NodeProto) -> str:
    """Path of the module a node was traced in, without the wrapper's own name."""
    noted = next((prop.value for prop in node.metadata_props if prop.key == _SCOPES), "[]")
    # the last entry is the operation itself
    path = str(["", *ast.literal_eval(noted)][-2:][0])
    # torch's own helpers, such as the query for the batch size, have scopes that are no module
    return "" if path.startswith("_") else path.removeprefix("model").removeprefix(".")
