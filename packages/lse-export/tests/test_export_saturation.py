"""Eight bits on both kinds of CPU: sums that overflow without VNNI are found, and 7-bit weights have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import lse_export
from lse_core.errors import LSEError
from lse_export.quantize import KERNEL_TOLERANCE, kernel_difference, overflowing, quantize
from lse_export.runtime import open_session, run

CHANNELS, CLASSES = 64, 16


def model() -> nn.Module:
    """Scores that add up what is bright, as trained first layers do: the worst case for sums of two."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(CHANNELS, CLASSES, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(CLASSES, CHANNELS, generator=generator) + 0.5)
    return nn.Sequential(nn.Flatten(), layer).eval()


def images(n: int = 32) -> Tensor:
    return torch.rand(n, CHANNELS, 1, 1, generator=torch.Generator().manual_seed(1)) * 2.0 - 0.5


def quantized(path: Path, weight_bits: int) -> onnx.ModelProto:
    weight = model()[1].weight.detach().numpy().T.copy()
    nodes = [helper.make_node("Flatten", ["image"], ["flat"], name="flat"),
             helper.make_node("MatMul", ["flat", "w"], ["logits"], name="head")]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", CHANNELS, 1, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    made = quantize(whole, images(), weight_bits=weight_bits)
    helper.set_model_props(made, {"lse.precision": "int8"})
    onnx.save(made, path)
    return made


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def products(proto: onnx.ModelProto, x: Tensor, *, cut_off: bool) -> np.ndarray:
    """What the MatMul gives in whole numbers: exactly, or with neighbours' sums cut off at 16 bits."""
    found = constants(proto)
    weight = found["w_quantized"].astype(np.int64)
    scale = next(v for k, v in found.items() if k.startswith("flat") and k.endswith("_scale"))
    level = np.clip(np.rint(x.flatten(1).numpy() / scale), -128, 127).astype(np.int64)
    # the kernels take activations from 0 to 255 and subtract what that adds
    terms = (level + 128)[:, :, None] * weight[None]
    pairs = terms[:, 0::2] + terms[:, 1::2]
    if cut_off:
        pairs = np.clip(pairs, -(2**15), 2**15 - 1)
    return (pairs.sum(1) - 128 * weight.sum(0)) * scale * found["w_scale"]


def cpu_overflows() -> bool | None:
    """Whether this CPU multiplies eight bits by what overflows; None where torch cannot say."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # only newer torch has it
    if not capabilities.get("avx2"):
        return None
    return not (capabilities.get("avx512_vnni") or capabilities.get("avx_vnni"))


def test_eight_bit_weights_overflow_where_sums_have_sixteen_bits(tmp_path: Path) -> None:
    proto = quantized(tmp_path / "m.onnx", 8)
    exact, cut = (products(proto, images(), cut_off=c) for c in (False, True))
    assert np.abs(exact - cut).max() > KERNEL_TOLERANCE * np.ptp(exact)
    assert overflowing(proto) == ["head"]
    # without VNNI ONNX Runtime computes the one, with it the other
    found = run(open_session(tmp_path / "m.onnx"), images())["logits"].numpy()
    slack = 0.01 * np.ptp(exact)  # its result is in steps of eight bits
    if cpu_overflows() is None:
        pytest.skip("not known whether this CPU has VNNI: other than x86, or an older torch")
    expected, other = (cut, exact) if cpu_overflows() else (exact, cut)
    assert np.abs(found - expected).max() < slack
    assert np.abs(found - other).max() > slack
    assert (kernel_difference(tmp_path / "m.onnx", [images()]) > KERNEL_TOLERANCE) == cpu_overflows()


def test_seven_bit_weights_never_do(tmp_path: Path) -> None:
    proto = quantized(tmp_path / "m.onnx", 7)
    weight = constants(proto)["w_quantized"]
    assert weight.dtype == np.int8
    assert np.abs(weight).max() == 64
    assert (np.abs(weight).max(0) == 64).all(), "every channel has its own scale"
    exact, cut = (products(proto, images(), cut_off=c) for c in (False, True))
    np.testing.assert_array_equal(exact, cut)
    assert not overflowing(proto)
    assert kernel_difference(tmp_path / "m.onnx", [images()]) == 0
    # the extremes of weights and of activations
    assert np.clip(2 * 255 * 64, -(2**15), 2**15 - 1) == 2 * 255 * 64
    with pytest.raises(LSEError, match="7 or 8 bits; got 6"):
        quantized(tmp_path / "m.onnx", 6)


@pytest.mark.parametrize("op", ["Conv", "Gemm"])
def test_channels_are_looked_at_one_by_one(op: str) -> None:
    def layers(weight: np.ndarray) -> list[str]:
        attributes = {"transB": 1} if op == "Gemm" else {}
        nodes = [
            helper.make_node("DequantizeLinear", ["w", "s"], ["v"]),
            helper.make_node(op, ["x", "v"], ["y"], name="it", **attributes),
        ]
        weights = [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.ones((), np.float32), "s"),
        ]
        graph = helper.make_graph(nodes, "g", [], [], weights)
        return overflowing(helper.make_model(graph))

    def shaped(*channels: list[int]) -> np.ndarray:
        values = np.array(channels, np.int8)
        return values[:, :, None, None] if op == "Conv" else values

    assert layers(shaped([127, 0, -127], [1, 1, 1])) == []
    assert layers(shaped([100, 28, 0], [-100, -28, 0])) == []
    assert layers(shaped([0, 0, 0], [100, 29, 0])) == ["it"]
    assert layers(shaped([-100, 5, -29], [0, 0, 0])) == ["it"]
    assert layers(shaped([127], [127])) == []


def test_verify_and_check_see_it(tmp_path: Path) -> None:
    quantized(tmp_path / "seven.onnx", 7)
    quantized(tmp_path / "eight.onnx", 8)
    seven = lse_export.verify(tmp_path / "seven.onnx", model(), images(), edges=False)
    assert seven.ok
    assert seven.overflowing == []
    assert seven.kernels == 0
    assert "overflow" not in seven.summary()
    eight = lse_export.verify(tmp_path / "eight.onnx", model(), images(), edges=False, throw=False)
    assert eight.overflowing == eight.as_dict()["overflowing"] == ["head"]
    # what is measured decides on the CPU at hand, what is seen warns of others
    here = replace(eight, kernels=0.37)
    assert not here.ok
    assert "8-bit sums overflow on this CPU and move outputs by 0.37" in here.summary()
    elsewhere = replace(seven, overflowing=eight.overflowing)
    assert elsewhere.ok
    assert "8-bit sums of 1 layers overflow on CPUs without VNNI instructions ('head' first)" in (
        elsewhere.summary()
    )
    (problem,) = lse_export.check(tmp_path / "eight.onnx", "onnxruntime").problems
    assert (problem.rule, problem.node, problem.severity) == ("saturation", "head", "warning")
    for file, target in (("seven", "onnxruntime"), ("eight", "tensorrt10"), ("eight", "web")):
        assert lse_export.check(tmp_path / f"{file}.onnx", target).problems == []
