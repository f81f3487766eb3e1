"""Eight-bit products that overflow on CPUs without VNNI, found by looking at a file's weights.

Without VNNI instructions, ONNX Runtime multiplies unsigned activations (0 to 255) by signed weights with an
instruction that adds two neighbouring products in 16 bits and cuts the sum off at 32,767 (Intel's
PMADDUBSW). Two weights of one output channel overflow where 255 (a + b) leaves 16 bits, which is where
|a + b| > 128. Weights of seven bits, within -64 and 64, never do.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["is_quantized", "overflowing"]

LARGEST_PAIR = 128  # 255 * 128 is still within 16 bits, 255 * 129 is not

# operators whose weights are int8, and the axis of their output channels (before Gemm's transB)
_CHANNELS = {"Conv": 0, "Gemm": 1, "MatMul": -1}


def overflowing(proto: onnx.ModelProto) -> list[str]:
    """Names of the layers whose int8 weights can overflow 16 bits in a sum of two products.

    A layer is named by its node, or by its first output. Which weights meet in a sum is for the kernel to
    choose, so a layer counts where the two largest, or the two least, of one output channel overflow
    together. Weights kept beside the file count only where they were loaded with it.
    """
    weights = {t.name: t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    made_by = {name: node for node in proto.graph.node for name in node.output}
    found = []
    for node in proto.graph.node:
        if node.op_type not in _CHANNELS or len(node.input) < 2:
            continue
        source = made_by.get(node.input[1])
        if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in weights:
            continue
        tensor = weights[source.input[0]]
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue
        axis = _CHANNELS[node.op_type]
        if any(a.name == "transB" and a.i for a in node.attribute):
            axis = 0
        by_channel = np.moveaxis(numpy_helper.to_array(tensor).astype(int), axis, 0)
        sums = np.sort(by_channel.reshape(len(by_channel), -1), axis=1)
        if sums.shape[1] < 2:
            continue
        if (sums[:, -2:].sum(1) > LARGEST_PAIR).any() or (sums[:, :2].sum(1) < -LARGEST_PAIR).any():
            found.append(node.name or node.output[0])
    return found


def is_quantized(proto: onnx.ModelProto) -> bool:
    """Whether the graph has DequantizeLinear nodes, and so 8-bit kernels to choose from."""
    return any(node.op_type == "DequantizeLinear" for node in proto.graph.node)
