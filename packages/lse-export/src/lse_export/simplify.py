"""Making a traced graph small, with the passes of onnx-ir and the rules of onnxscript."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules import common as rules

__all__ = ["simplify"]

RULES = (
    rules.mul_by_1_rule,
    rules.add_0_rule,
    rules.sub_0_rule,
    rules.div_by_1_rule,
    rules.one_reshape_matmul_reshape_rule,
    rules.two_reshapes_matmul_reshape_rule,
    rules.cast_constant_of_shape_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.min_min_rule,
    rules.max_max_rule,
    rules.min_max_rule,
    rules.max_min_rule,
    rules.successive_clip_relu_rule,
    rules.successive_relu_clip_rule,
    rules.successive_relu_rule,
    rules.successive_clip_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.flatten_to_reshape_rule,
    rules.reshape_reshape_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.squeeze_reshape_1d_rule,
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
    rules.fuse_batchnorm_into_conv_rule,
    rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.fuse_batchnorm_into_gemm_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
    rules.remove_optional_bias_from_gemm_rule,
)
"""onnxscript's own choice but for what no network in eval mode has, and for `slice_split_rule`: a pattern of
two outputs is looked for by listing the whole graph again at every node, most of the time of long solves."""

ROUNDS = 2
"""What one round of rules leaves, the next can still fold; a third finds nothing."""


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
        model = common.RemoveUnusedNodesPass()(model).model
    end = ir.passes.Sequential(
        common.RemoveUnusedFunctionsPass(),
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
