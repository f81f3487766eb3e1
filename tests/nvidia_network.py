"""Reads an ONNX file with NVIDIA's parser and runs, in torch on the CPU, the network that came of it.

It shows how NVIDIA's parser reads a file: layer by layer, the network it made is computed as the layers'
documentation says, and can be compared with the model. It says nothing about NVIDIA's kernels, nor about what
the builder makes of the network. float16 layers are computed in float32 and their results rounded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lse_export import build_engine
from lse_export.tensorrt.library import load
from lse_export.tensorrt.network import parse
from lse_export.tensorrt.runner import torch_types


class Network:
    """A file as NVIDIA's parser read it.

    Attributes:
        kinds: how many layers of each type it has.
    """

    def __init__(self, path: Path) -> None:
        found = load("rtx")
        self.trt = found.trt
        self.parsed = parse(found, path)
        network = self.parsed.network
        self.layers = self._in_order([network.get_layer(k) for k in range(network.num_layers)])
        self.kinds = Counter(kind for kind, _ in self.layers)
        self.types = torch_types(self.trt)
        self.inputs = [network.get_input(k) for k in range(network.num_inputs)]
        self.outputs = [network.get_output(k).name for k in range(network.num_outputs)]

    def _in_order(self, layers: list) -> list[tuple[str, Any]]:
        """Layers so that each comes after those whose results it takes, which is not the network's order."""
        maker = {
            layer.get_output(j).name: k for k, layer in enumerate(layers) for j in range(layer.num_outputs)
        }
        before = {
            k: [
                maker[tensor.name]
                for j in range(layer.num_inputs)
                if (tensor := layer.get_input(j)) is not None and tensor.name in maker
            ]
            for k, layer in enumerate(layers)
        }
        return [self._typed(layers[k]) for k in TopologicalSorter(before).static_order()]

    def _typed(self, layer: Any) -> tuple[str, Any]:
        """The layer with the attributes of its type, which the bindings hand out without."""
        kind = layer.type.name
        classes = {name[1:-5].upper(): name for name in dir(self.trt) if name.endswith("Layer")}
        layer.__class__ = getattr(self.trt, classes[kind.replace("_", "")])
        return kind, layer

    def __call__(self, *images: Tensor) -> dict[str, Tensor]:
        """Outputs by name; checks the type and the known sizes of every tensor on the way."""
        values = {tensor.name: image for tensor, image in zip(self.inputs, images, strict=True)}
        for kind, layer in self.layers:
            given = [layer.get_input(k) for k in range(layer.num_inputs)]
            inputs = [None if tensor is None else values[tensor.name] for tensor in given]
            results = LAYERS[kind](layer, inputs)
            for k, result in enumerate(results if isinstance(results, tuple) else (results,)):
                tensor = layer.get_output(k)
                expected = self.types[tensor.dtype]
                if result.is_floating_point() and expected.is_floating_point:
                    result = result.to(expected)  # computed wider
                where = f"{kind} {layer.name!r}"
                assert result.dtype == expected, f"{where}: {result.dtype}, in the network {expected}"
                sizes = tuple(tensor.shape)
                assert len(sizes) == result.ndim, f"{where}: {tuple(result.shape)}, in the network {sizes}"
                assert all(a in (-1, b) for a, b in zip(sizes, result.shape, strict=True)), where
                assert tensor.name not in values, f"{where}: two tensors are called {tensor.name!r}"
                values[tensor.name] = result
        return {name: values[name] for name in self.outputs}


def wide(x: Tensor) -> Tensor:
    """In float32 where it is in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def listed(mask: int) -> list[int]:
    """Axes of a bit mask."""
    return [k for k in range(mask.bit_length()) if mask >> k & 1]


def numbers(x: Tensor) -> list[int]:
    return [int(n) for n in x.flatten()]


def constant(layer: Any, inputs: list) -> Tensor:
    return torch.from_numpy(layer.weights.copy()).reshape(tuple(layer.shape))


def elementwise(layer: Any, inputs: list) -> Tensor:
    a, b = wide(inputs[0]), wide(inputs[1])
    whole = not a.is_floating_point()
    operations: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "SUM": torch.add, "PROD": torch.mul, "SUB": torch.sub, "MAX": torch.maximum, "MIN": torch.minimum,
        "POW": torch.pow, "EQUAL": torch.eq, "GREATER": torch.gt, "LESS": torch.lt,
        "DIV": (lambda x, y: torch.div(x, y, rounding_mode="trunc")) if whole else torch.div,
        "FLOOR_DIV": lambda x, y: torch.div(x, y, rounding_mode="floor"),
        "AND": torch.logical_and, "OR": torch.logical_or, "XOR": torch.logical_xor,
    }  # fmt: skip
    return operations[layer.op.name](a, b)


def unary(layer: Any, inputs: list) -> Tensor:
    operations = {
        "EXP": torch.exp, "LOG": torch.log, "SQRT": torch.sqrt, "RECIP": torch.reciprocal, "ABS": torch.abs,
        "NEG": torch.neg, "SIN": torch.sin, "COS": torch.cos, "TAN": torch.tan, "FLOOR": torch.floor,
        "CEIL": torch.ceil, "ERF": torch.erf, "NOT": torch.logical_not, "SIGN": torch.sign,
        "ROUND": torch.round, "ISINF": torch.isinf, "ISNAN": torch.isnan,
    }  # fmt: skip
    return operations[layer.op.name](wide(inputs[0]))


def activation(layer: Any, inputs: list) -> Tensor:
    a, b = layer.alpha, layer.beta
    operations: dict[str, Callable[[Tensor], Tensor]] = {
        "RELU": torch.relu, "SIGMOID": torch.sigmoid, "TANH": torch.tanh,
        "LEAKY_RELU": lambda x: F.leaky_relu(x, a), "CLIP": lambda x: x.clamp(a, b),
        "GELU_ERF": F.gelu, "GELU_TANH": lambda x: F.gelu(x, approximate="tanh"),
        "HARD_SIGMOID": lambda x: (a * x + b).clamp(0, 1), "SOFTPLUS": F.softplus,
    }  # fmt: skip
    return operations[layer.type.name](wide(inputs[0]))


def reduce(layer: Any, inputs: list) -> Tensor:
    x, axes = wide(inputs[0]), listed(layer.axes)
    operations: dict[str, Callable[..., Tensor]] = {
        "SUM": torch.sum, "AVG": torch.mean, "MAX": torch.amax, "MIN": torch.amin,
    }  # fmt: skip
    if layer.op.name == "PROD":
        for axis in reversed(axes):
            x = x.prod(axis, keepdim=layer.keep_dims)
        return x
    return operations[layer.op.name](x, axes, keepdim=layer.keep_dims)


def softmax(layer: Any, inputs: list) -> Tensor:
    (axis,) = listed(layer.axes)
    return wide(inputs[0]).softmax(axis)


def matrix_multiply(layer: Any, inputs: list) -> Tensor:
    def turned(x: Tensor, operation: Any) -> Tensor:
        assert operation.name != "VECTOR"
        return x.mT if operation.name == "TRANSPOSE" else x

    return turned(wide(inputs[0]), layer.op0) @ turned(wide(inputs[1]), layer.op1)


def shuffle(layer: Any, inputs: list) -> Tensor:
    x = inputs[0]
    x = x.permute(list(layer.first_transpose)[: x.ndim])
    if len(inputs) > 1:
        sizes = numbers(inputs[1])
    else:  # None where no reshaping was asked for
        sizes = list(x.shape if layer.reshape_dims is None else layer.reshape_dims)
    if layer.zero_is_placeholder:
        sizes = [x.shape[k] if size == 0 else size for k, size in enumerate(sizes)]
    x = x.reshape(sizes)
    return x.permute(list(layer.second_transpose)[: x.ndim])


def gather(layer: Any, inputs: list) -> Tensor:
    x, index = inputs[0], inputs[1].long()
    axis, same = layer.axis, layer.num_elementwise_dims
    if layer.mode.name == "ELEMENT":
        return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index))
    assert same == 0, "gathering batch by batch"
    if layer.mode.name == "ND":
        return x[tuple(index.unbind(-1))]
    assert layer.mode.name == "DEFAULT", layer.mode
    index = torch.where(index < 0, index + x.shape[axis], index)
    found = x.index_select(axis, index.flatten())
    return found.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def cut(layer: Any, inputs: list) -> Tensor:
    """A slice: start, sizes and stride by axis, from attributes or from further inputs."""
    x = inputs[0]
    more = [*inputs[1:], *[None] * (6 - len(inputs))]
    axes = numbers(more[4]) if more[4] is not None else list(layer.axes or range(x.ndim))
    start, sizes, stride = (
        numbers(tensor) if tensor is not None else list(getattr(layer, name))
        for tensor, name in zip(more, ("start", "shape", "stride"), strict=False)
    )
    mode = layer.mode.name
    for axis, first, size, step in zip(axes, start, sizes, stride, strict=True):
        index = first + step * torch.arange(size)
        n = x.shape[axis]
        inside = (index >= 0) & (index < n)
        if mode == "STRICT_BOUNDS":
            assert inside.all(), f"a slice of {layer.name!r} leaves its input"
        assert mode in ("STRICT_BOUNDS", "FILL", "CLAMP"), mode
        x = x.index_select(axis, index.clamp(0, n - 1))
        if mode == "FILL":
            fill = more[3] if more[3] is not None else torch.zeros((), dtype=x.dtype)
            x = torch.where(inside.view([-1 if k == axis else 1 for k in range(x.ndim)]), x, fill)
    return x


def padded(x: Tensor, layer: Any, value: float = 0.0) -> Tensor:
    """With the layer's padding around its spatial axes."""
    assert layer.padding_mode.name == "EXPLICIT_ROUND_DOWN", layer.padding_mode
    sides = [n for pair in zip(layer.pre_padding, layer.post_padding, strict=True) for n in reversed(pair)]
    return F.pad(x, sides[::-1], value=value) if any(sides) else x


def convolution(layer: Any, inputs: list) -> Tensor:
    x, groups = wide(inputs[0]), layer.num_groups
    if len(inputs) > 1 and inputs[1] is not None:
        weight = wide(inputs[1])
    else:
        kernel = wide(torch.from_numpy(layer.kernel.copy()))
        weight = kernel.reshape(layer.num_output_maps, x.shape[1] // groups, *layer.kernel_size_nd)
    bias = torch.from_numpy(layer.bias.copy()) if layer.bias is not None and layer.bias.size else None
    if len(inputs) > 2 and inputs[2] is not None:
        bias = inputs[2]
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.ndim]
    return convolve(
        padded(x, layer), weight, None if bias is None else wide(bias),
        tuple(layer.stride_nd), 0, tuple(layer.dilation_nd), groups,
    )  # fmt: skip


def pooling(layer: Any, inputs: list) -> Tensor:
    x, window, stride = wide(inputs[0]), tuple(layer.window_size_nd), tuple(layer.stride_nd)
    assert x.ndim == 4
    if layer.type.name == "MAX":
        return F.max_pool2d(padded(x, layer, -torch.inf), window, stride)
    assert layer.type.name == "AVERAGE"
    sums = F.avg_pool2d(padded(x, layer), window, stride)
    if layer.average_count_excludes_padding:
        sums = sums / F.avg_pool2d(padded(torch.ones_like(x), layer), window, stride)
    return sums


def normalization(layer: Any, inputs: list) -> Tensor:
    x, scale, bias = (wide(tensor) for tensor in inputs)
    assert layer.num_groups == 1
    axes = listed(layer.axes)
    mean = x.mean(axes, keepdim=True)
    spread = (x - mean).square().mean(axes, keepdim=True) + layer.epsilon
    return (x - mean) / spread.sqrt() * scale + bias


def cumulative(layer: Any, inputs: list) -> Tensor:
    x, axis = wide(inputs[0]), int(inputs[1])
    assert layer.op.name == "SUM"
    if layer.reverse:
        x = x.flip(axis)
    found = x.cumsum(axis)
    if layer.exclusive:
        found = found - x
    return found.flip(axis) if layer.reverse else found.to(x.dtype)


def by_axis(scale: Tensor, x: Tensor, axis: int) -> Tensor:
    return scale.view([-1 if k == axis else 1 for k in range(x.ndim)]) if scale.ndim == 1 else scale


def quantize(layer: Any, inputs: list) -> Tensor:
    x = wide(inputs[0])
    assert not (len(inputs) > 2 and inputs[2] is not None and inputs[2].any()), "a zero point"
    levels = (x / by_axis(wide(inputs[1]), x, layer.axis)).round()
    kinds = {"INT8": (torch.int8, -128, 127), "UINT8": (torch.uint8, 0, 255)}
    kind, least, largest = kinds[layer.to_type.name]
    return levels.clamp(least, largest).to(kind)


def dequantize(layer: Any, inputs: list) -> Tensor:
    x = inputs[0].float()
    assert not (len(inputs) > 2 and inputs[2] is not None and inputs[2].any()), "a zero point"
    return x * by_axis(wide(inputs[1]), x, layer.axis)


def cast(layer: Any, inputs: list) -> Tensor:
    kinds = {
        "FLOAT": torch.float32, "HALF": torch.float16, "INT64": torch.int64, "INT32": torch.int32,
        "BOOL": torch.bool, "UINT8": torch.uint8, "INT8": torch.int8,
    }  # fmt: skip
    return inputs[0].to(kinds[layer.to_type.name])


def resize(layer: Any, inputs: list) -> Tensor:
    """Axis by axis: the position each new point has in the old ones, and linear or nearest between these."""
    x = wide(inputs[0])
    if len(inputs) > 1 and inputs[1] is not None:
        sizes = numbers(inputs[1])
        factors = [new / old for new, old in zip(sizes, x.shape, strict=True)]
    elif len(layer.scales):
        factors = list(layer.scales)
        sizes = [int(old * factor) for old, factor in zip(x.shape, factors, strict=True)]
    else:
        sizes = list(layer.shape)
        factors = [new / old for new, old in zip(sizes, x.shape, strict=True)]
    way = layer.coordinate_transformation.name
    for axis, (new, factor) in enumerate(zip(sizes, factors, strict=True)):
        old = x.shape[axis]
        if new == old:
            continue
        k = torch.arange(new, dtype=torch.float64)
        places = {
            "HALF_PIXEL": (k + 0.5) / factor - 0.5,
            "ASYMMETRIC": k / factor,
            "ALIGN_CORNERS": k * (old - 1) / max(new - 1, 1),
        }[way]
        if layer.resize_mode.name == "NEAREST":
            rounded = {
                "FLOOR": torch.floor(places), "CEIL": torch.ceil(places),
                "HALF_DOWN": torch.ceil(places - 0.5), "HALF_UP": torch.floor(places + 0.5),
            }[layer.nearest_rounding.name]  # fmt: skip
            x = x.index_select(axis, rounded.long().clamp(0, old - 1))
            continue
        assert layer.resize_mode.name == "LINEAR", layer.resize_mode
        low = places.floor()
        share = (places - low).float().view([-1 if k == axis else 1 for k in range(x.ndim)])
        low = low.long()
        first = x.index_select(axis, low.clamp(0, old - 1))
        x = first + share * (x.index_select(axis, (low + 1).clamp(0, old - 1)) - first)
    return x


def fill(layer: Any, inputs: list) -> Tensor:
    """Numbers from a first one on, by a step, as many as its first input says."""
    assert layer.operation.name == "LINSPACE", layer.operation
    (count,) = numbers(inputs[0])
    return inputs[1] + inputs[2] * torch.arange(count, dtype=inputs[1].dtype)


def squeezed(layer: Any, inputs: list) -> Tensor:
    return inputs[0].squeeze(tuple(numbers(inputs[1]))) if len(inputs) > 1 else inputs[0].squeeze()


def unsqueezed(layer: Any, inputs: list) -> Tensor:
    x, axes = inputs[0], numbers(inputs[1])
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


LAYERS: dict[str, Callable[[Any, list], Any]] = {
    "ACTIVATION": activation,
    "CAST": cast,
    "CONCATENATION": lambda layer, inputs: torch.cat(inputs, layer.axis),
    "CONSTANT": constant,
    "CONVOLUTION": convolution,
    "CUMULATIVE": cumulative,
    "DEQUANTIZE": dequantize,
    "ELEMENTWISE": elementwise,
    "FILL": fill,
    "GATHER": gather,
    "IDENTITY": lambda layer, inputs: inputs[0],
    "MATRIX_MULTIPLY": matrix_multiply,
    "NORMALIZATION": normalization,
    "POOLING": pooling,
    "QUANTIZE": quantize,
    "REDUCE": reduce,
    "RESIZE": resize,
    "SELECT": lambda layer, inputs: torch.where(*inputs),
    "SHAPE": lambda layer, inputs: torch.tensor(inputs[0].shape, dtype=torch.int64),
    "SHUFFLE": shuffle,
    "SLICE": cut,
    "SOFTMAX": softmax,
    "SQUEEZE": squeezed,
    "UNARY": unary,
    "UNSQUEEZE": unsqueezed,
}
"""What computes each type of layer."""


def check_reading(path: Path, images: Tensor, expected: Tensor, tolerance: float) -> float:
    """Compare what NVIDIA's parser read with what the model gives; returns the difference, of its range."""
    network = Network(path)
    (found,) = network(images).values()
    extent = float(expected.max() - expected.min())
    difference = float((found.double() - expected.double()).abs().max()) / extent
    print(
        f"NVIDIA's parser: {sum(network.kinds.values())} layers, {difference:.1e} of the output's range off"
    )
    assert difference <= tolerance, f"as NVIDIA's parser reads {path.name}, it is off by {difference:.2g}"
    return difference


def check_building(path: Path, **options: Any) -> Any:
    """Build an engine for all RTX GPUs, and look at what lies beside it."""
    made = build_engine(path, path.with_suffix(".plan"), flavour="rtx", **options)
    assert made.path.stat().st_size > path.stat().st_size / 4
    nodes = {node for layer in json.loads(made.layers.read_text())["Layers"] for node in layer["Nodes"]}
    assert any("canonicalizer" in node for node in nodes), "no layer came of the canonicalizers"
    print(f"NVIDIA's builder: {made.layer_count} layers, {made.path.stat().st_size / 2**20:.1f} MiB")
    return made
