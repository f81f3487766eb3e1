"""The part of running an engine that calls TensorRT, any flavour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lse_export.errors import ExportError
from lse_export.tensorrt.library import Bindings, need, new_runtime

if TYPE_CHECKING:
    import tensorrt


def torch_types(trt: Any) -> dict[Any, torch.dtype]:
    """torch's types by TensorRT's."""
    return {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.INT64: torch.int64,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT8: torch.int8,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.BOOL: torch.bool,
    }


class Runner:
    """A loaded engine with one execution context: one call at a time.

    Args:
        found: the flavour that built it.
        path: the engine.
        device: CUDA device it runs on.
        version_compatible: whether it carries its own runtime, which is then allowed to run.

    Raises:
        ExportError: TensorRT cannot load it, or it has tensors that torch cannot hold.
    """

    def __init__(
        self, found: Bindings, path: Path, device: torch.device, version_compatible: bool = False
    ) -> None:
        trt = found.trt
        self.device, self.found, self.log = device, found, found.Log()
        self.runtime: tensorrt.Runtime = new_runtime(found, self.log, version_compatible)
        with torch.cuda.device(device):
            self.check(path)
            loaded: tensorrt.ICudaEngine | None = self.runtime.deserialize_cuda_engine(path.read_bytes())
            engine: tensorrt.ICudaEngine = need(loaded, self.log, f"{found.title} cannot load {path}")
            self.engine: tensorrt.ICudaEngine = engine
            self.context: tensorrt.IExecutionContext = self.new_context()
        self.inputs: list[str] = []
        self.types: dict[str, torch.dtype] = {}
        known = torch_types(trt)
        for k in range(engine.num_io_tensors):
            name = engine.get_tensor_name(k)
            kind = engine.get_tensor_dtype(name)
            if kind not in known:
                raise ExportError(f"{path}: torch has no type for {name!r}, which is {kind}")
            self.types[name] = known[kind]
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                self.inputs.append(name)

    def check(self, path: Path) -> None:
        """Refuse an engine before it is loaded, in flavours that can check it."""

    def make_context(self) -> tensorrt.IExecutionContext | None:
        """An execution context as this flavour makes them; None where TensorRT cannot."""
        context: tensorrt.IExecutionContext | None = self.engine.create_execution_context()
        return context

    def new_context(self) -> tensorrt.IExecutionContext:
        """An execution context of its own, with scratch memory of its own."""
        return need(self.make_context(), self.log, "TensorRT has no memory for the engine's activations")

    def bind(self, context: tensorrt.IExecutionContext, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the context the addresses of the inputs and of new outputs, which are returned."""
        for name, tensor in inputs.items():
            taken = context.set_input_shape(name, tuple(tensor.shape))
            need(taken, self.log, f"the engine refuses {name!r} of shape {tuple(tensor.shape)}")
            self._address(context, name, tensor)
        outputs = {}
        for name, kind in self.types.items():
            if name in self.inputs:
                continue
            shape = tuple(context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise ExportError(f"the size of {name!r} depends on values, which is not supported")
            outputs[name] = torch.empty(shape, dtype=kind, device=self.device)
            self._address(context, name, outputs[name])
        return outputs

    def _address(self, context: tensorrt.IExecutionContext, name: str, tensor: Tensor) -> None:
        taken = context.set_tensor_address(name, tensor.data_ptr())
        need(taken, self.log, f"TensorRT refuses the memory of {name!r}")

    def enqueue(self, context: tensorrt.IExecutionContext) -> None:
        """Start the work on torch's current stream; returns at once."""
        stream = torch.cuda.current_stream(self.device).cuda_stream
        need(context.execute_async_v3(stream), self.log, "the engine failed to run")

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name, on torch's current stream."""
        outputs = self.bind(self.context, inputs)
        self.enqueue(self.context)
        return outputs

    def refit(self, model: Path) -> None:
        """Replace the weights by those of an ONNX file of the same graph."""
        trt = self.found.trt
        refitter: tensorrt.Refitter = trt.Refitter(self.engine, self.log)
        parser: tensorrt.OnnxParserRefitter = trt.OnnxParserRefitter(refitter, self.log)
        taken = parser.refit_from_file(str(model)) and refitter.refit_cuda_engine()
        need(taken, self.log, f"the engine does not take the weights of {model}")


class Captured:
    """A CUDA graph of one run at one set of shapes, with memory and a context of its own.

    Args:
        runner: whose engine to run.
        inputs: contiguous tensors of the shapes to capture; copied.
    """

    def __init__(self, runner: Runner, inputs: dict[str, Tensor]) -> None:
        self.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        # a context of its own: setting other shapes on a shared one would change what the graph reads
        self.context: tensorrt.IExecutionContext = runner.new_context()
        self.outputs = runner.bind(self.context, self.inputs)
        self.graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream(runner.device)
        side.wait_stream(torch.cuda.current_stream(runner.device))
        with torch.cuda.stream(side):
            runner.enqueue(self.context)  # once outside: TensorRT prepares what must not be captured
        torch.cuda.current_stream(runner.device).wait_stream(side)
        with torch.cuda.graph(self.graph):
            runner.enqueue(self.context)

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name: copies, for the next run overwrites the graph's own."""
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor)
        self.graph.replay()
        return {name: tensor.clone() for name, tensor in self.outputs.items()}
