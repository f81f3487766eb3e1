"""Making a traced graph small, with the passes of onnx-ir and the rules of onnxscript."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import rewrite

__all__ = ["simplify"]

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
        model = rewrite(model)
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
    return end(model).model
