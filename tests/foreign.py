"""ONNX files as others make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper


def foreign(path: Path, kind: int = TensorProto.FLOAT, shape: tuple[Any, ...] = ("n", 3, 32, 32)) -> Path:
    """A classifier of another maker: the mean of each channel, and five scores of these."""
    weights = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32) * 0.05
    axes = [1, 2] if shape[3] == 3 else [2, 3]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (shape[0], 5))],
        [
            onnx.numpy_helper.from_array(np.array(axes), "axes"),
            onnx.numpy_helper.from_array(weights, "weights"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
