"""An ONNX model as the rules see it: every node, subgraphs included, with the types of its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from lse_export.errors import ExportError


class Model:
    """A loaded model and what was inferred about it.

    Attributes:
        path: the file.
        proto: the model without external weights.
        nodes: all nodes in order, those of subgraphs and local functions too.
        types: type names ("float32", "int64", ...) by tensor name, where known.
        shapes: sizes of a tensor's axes, by its name, where its rank is known; None where a size varies.
        constants: names of initializers and of outputs of Constant nodes.
    """

    def __init__(self, path: Path, proto: onnx.ModelProto) -> None:
        self.path, self.proto = path, proto
        self.types: dict[str, str] = {}
        self.shapes: dict[str, list[int | None]] = {}
        self.constants: set[str] = set()
        self.tensors: dict[str, onnx.TensorProto] = {}
        try:
            graph = onnx.shape_inference.infer_shapes(proto).graph
        except (onnx.shape_inference.InferenceError, ValueError):
            graph = proto.graph  # what is wrong is for the rules to say
        self.nodes = list(self._walk(graph))
        for function in proto.functions:
            self.nodes.extend(function.node)
        self.functions = {(f.domain, f.name) for f in proto.functions}

    def _walk(self, graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
        for value in [*graph.input, *graph.output, *graph.value_info]:
            if value.type.HasField("tensor_type"):
                self.types[value.name] = type_name(value.type.tensor_type.elem_type)
                if value.type.tensor_type.HasField("shape"):
                    self.shapes[value.name] = sizes_of(value)
        for tensor in graph.initializer:
            self.types[tensor.name] = type_name(tensor.data_type)
            self.constants.add(tensor.name)
            self.tensors[tensor.name] = tensor
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                self.constants.update(node.output)
                for item in node.attribute:
                    if item.name == "value":
                        self.tensors[node.output[0]] = item.t
            yield node
            for item in node.attribute:
                if item.type == onnx.AttributeProto.GRAPH:
                    yield from self._walk(item.g)
                for graph_ in item.graphs:
                    yield from self._walk(graph_)

    def value(self, name: str) -> np.ndarray | None:
        """The values of a constant; None if they are computed or kept beside the graph."""
        tensor = self.tensors.get(name)
        if tensor is None or uses_external_data(tensor):
            return None
        return numpy_helper.to_array(tensor)

    @property
    def opset(self) -> int:
        """Opset of the standard domain; 0 where the file names none."""
        return max((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), default=0)


def weight_files(path: Path, graph: onnx.GraphProto) -> list[str]:
    """Names, in order, of the files beside the ONNX file `path` that hold its external weights.

    Whoever made the file chose the names, so none may lead out of its folder.

    Raises:
        ExportError: a name that leads out of the folder, by itself or by a link, or names no regular file.
    """
    names = sorted({ExternalDataInfo(t).location for t in graph.initializer if uses_external_data(t)})
    for name in names:
        plain = PureWindowsPath(name)  # knows drives and both slashes
        inside = bool(plain.parts) and not plain.anchor and ".." not in plain.parts and "\0" not in name
        file = path.parent / name
        try:
            inside = inside and file.resolve().is_relative_to(path.parent.resolve())
            there, regular = inside and file.exists(), inside and file.is_file()
        except (OSError, RuntimeError) as error:  # a name too long, links in a circle
            raise ExportError(f"cannot read {file}, where {path} keeps weights: {error}") from error
        if not inside:
            raise ExportError(
                f"{path} keeps weights in {name!r}, outside of its folder, which is not followed; "
                "save the model again with its weights beside it"
            )
        if not there:
            raise ExportError(f"cannot read {file}: No such file, but {path} keeps weights in it")
        if not regular:
            raise ExportError(f"{file} is not a regular file, but {path} keeps weights in it")
    return names


def load_proto(path: Path) -> onnx.ModelProto:
    """Read an ONNX file without its external weights.

    Raises:
        ExportError: there is no such file, or it is no ONNX model.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    try:
        return onnx.load_model(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError moves between its versions
        raise ExportError(f"{path} is not an ONNX model, or is truncated ({type(error).__name__})") from error


def open_model(path: Path) -> Model:
    """Read an ONNX file, and infer the types and shapes of its tensors.

    Raises:
        ExportError: no such file, truncated, or no ONNX model at all.
    """
    proto = load_proto(path)
    # most random bytes are no protobuf, but an empty file is: a message without fields
    if not proto.graph.node:
        raise ExportError(f"{path} is not an ONNX model, or is truncated (it has no nodes)")
    return Model(path, proto)


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The graph's inputs without the weights, which files of old versions list among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def sizes_of(value: onnx.ValueInfoProto) -> list[int | None]:
    """Sizes of a tensor's axes, None where a size varies."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def type_name(number: int) -> str:
    """ "float32" for TensorProto.FLOAT and so on; "unknown" where there is none."""
    if number == onnx.TensorProto.UNDEFINED or number not in onnx.TensorProto.DataType.values():
        return "unknown"
    if number == onnx.TensorProto.STRING:
        return "string"
    return str(helper.tensor_dtype_to_np_dtype(number))


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """Value of an attribute; text as str."""
    found = (helper.get_attribute_value(item) for item in node.attribute if item.name == name)
    value = next(found, default)
    return value.decode() if isinstance(value, bytes) else value


def label(node: onnx.NodeProto) -> str:
    """How to call a node: its name, or its first output where it has none."""
    return node.name or f"(output {next(iter(node.output), '?')})"
