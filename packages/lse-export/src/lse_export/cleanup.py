"""Making an exported graph the same bytes for the same model, with nothing of the machine in it."""

from __future__ import annotations

import ast
from collections import Counter

import onnx

__all__ = ["clean"]

_SCOPES = "pkg.torch.onnx.name_scopes"


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
    for prop in node.metadata_props:
        if prop.key == _SCOPES:
            scopes = ast.literal_eval(prop.value)
            # the last entry is the operation itself
            path = str(scopes[-2]) if len(scopes) > 1 else ""
            # torch's own helpers, such as the query for the batch size, have scopes that are no module
            return "" if path.startswith("_") else path.removeprefix("model").removeprefix(".")
    return ""
