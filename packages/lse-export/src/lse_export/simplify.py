"""Making a traced graph small, and the same bytes for the same model, with onnx-ir and onnxscript."""

from __future__ import annotations

import ast
from collections import Counter

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules import common as rules

__all__ = ["clean", "simplify"]

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
    """Name every node after the module it came from and strip what torch noted beside the graph, in place.

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
