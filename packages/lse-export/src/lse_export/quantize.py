"""int8 by ONNX Runtime's static quantization, for layers with weights outside of canonicalizers.

And eight-bit products that overflow, found by looking at a file's weights. On CPUs without VNNI instructions,
ONNX Runtime multiplies unsigned activations (0 to 255) by signed weights with an instruction that adds two
neighbouring products in 16 bits and cuts the sum off at 32,767 (Intel's PMADDUBSW). Two weights of one output
channel overflow where 255 (a + b) leaves 16 bits, which is where |a + b| > 128. Weights of seven bits, within
-64 and 64, never do.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from lse_core.errors import LSEError
from lse_export.errors import ExportError, first_line

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["QUANTIZED", "is_quantized", "kernel_difference", "overflowing", "quantize", "quantized_nodes"]

QUANTIZED = ("Conv", "Gemm", "MatMul")
"""Operators whose inputs are stored in eight bits."""

LARGEST_PAIR = 128  # 255 * 128 is still within 16 bits, 255 * 129 is not

KERNEL_TOLERANCE = 0.01
"""Largest difference, of the output's range, between fast and precise kernels; 0 where no sum overflows.

With sums cut off it was 0.37 in the digits classifier of the tests, on an emulated CPU without VNNI.
"""

# operators whose weights are int8, and the axis of their output channels (before Gemm's transB)
_CHANNELS = {"Conv": 0, "Gemm": 1, "MatMul": -1}


def quantized_nodes(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes that int8 is for: products with constant weights outside of canonicalizers.

    Warping is a product of two computed tensors, so it is out, with coordinates and the solver; so is
    attention's.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in QUANTIZED and node.input[1] in weights and "canonicalizer" not in node.name
    ]


def quantize(
    proto: onnx.ModelProto, calibration: Tensor, batch: int = 8, weight_bits: int = 7
) -> onnx.ModelProto:
    """The graph with int8 weights and activations between QuantizeLinear and DequantizeLinear pairs.

    Symmetric (TensorRT takes no other), weights by channel, ranges from the extremes seen. Weights use seven
    of their eight bits unless asked otherwise, because a file does not know which CPU it will meet: on those
    without VNNI, ONNX Runtime cuts sums of two products off at 16 bits, and full weights then lose answers
    (see above). A GPU loses nothing by it but half a step of the weights' rounding.

    Args:
        proto: a float32 graph of one input, as `lse_export.trace.clean` leaves it; its metadata go.
        calibration: (n, ...) inputs of the graph that the ranges are measured on; a few dozen do.
        batch: images a run; a graph of a fixed batch takes its own.
        weight_bits: 7 (weights within -64 and 64) or 8 (within -127 and 127), stored as int8 either way.

    Raises:
        ExportError: ONNX Runtime cannot quantize the graph.
        LSEError: `weight_bits` is neither 7 nor 8, nothing in the graph can be quantized, or there are fewer
            images than a fixed batch has.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    if weight_bits not in (7, 8):
        raise LSEError(f"weights are quantized to 7 or 8 bits; got {weight_bits!r}")
    names = quantized_nodes(proto)
    if not names:
        raise LSEError("there is nothing to quantize: outside of the canonicalizers no layer has weights")
    image = proto.graph.input[0]
    fixed = image.type.tensor_type.shape.dim[0]
    size = fixed.dim_value or batch
    if len(calibration) < (fixed.dim_value or 1):
        raise LSEError(f"calibration needs at least {size} images; got {len(calibration)}")
    batches = iter(
        {image.name: chunk.contiguous().cpu().numpy()}
        for chunk in calibration.split(size)
        if len(chunk) == size or not fixed.dim_value
    )
    # what ONNX Runtime's own preparation would note; without it, it logs an advice to run that
    onnx.helper.set_model_props(proto, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:  # ONNX Runtime only writes files
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(proto, source, save_as_external_data=True, location="float32.data")
        try:
            quantize_static(
                source,
                target,
                SimpleNamespace(get_next=lambda: next(batches, None)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                nodes_to_quantize=names,
                per_channel=True,
                reduce_range=weight_bits == 7,  # of the weights alone
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                # TensorRT dequantizes no int32, so biases stay as they are
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
            )
        except Exception as error:  # ONNX Runtime's own, of no common class
            raise ExportError(f"ONNX Runtime cannot quantize the graph: {first_line(error)}") from error
        quantized = onnx.load(target)
    del quantized.metadata_props[:]
    # onnxruntime.quant is its own domain, needed only for operators that are not in this graph
    used = {node.domain for node in quantized.graph.node}
    kept = [o for o in quantized.opset_import if o.domain in used or o.domain in ("", "ai.onnx")]
    del quantized.opset_import[:]
    quantized.opset_import.extend(kept)
    return quantized


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


def kernel_difference(path: Path, batches: list[Tensor]) -> float:
    """Largest difference between ONNX Runtime's fast kernels on this CPU and its precise ones.

    The fast 8-bit kernels of CPUs without VNNI instructions cut sums off (see above).

    Args:
        path: an ONNX file of one input.
        batches: inputs of the file.

    Returns:
        The difference, of the range of the output it is in; 0 where both are the same.

    Raises:
        ExportError: the file cannot be run.
    """
    import torch

    from lse_export.runtime import open_session, run
    from lse_export.unroll import extent

    fast, precise = (
        [run(session, batch) for batch in batches]
        for session in (open_session(path), open_session(path, precise=True))
    )
    worst = 0.0
    for name in precise[0]:
        here, there = (torch.cat([outputs[name] for outputs in found]).double() for found in (fast, precise))
        worst = max(worst, float((here - there).abs().max()) / extent(name, there))
    return worst
