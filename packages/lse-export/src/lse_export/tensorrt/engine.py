"""Running an engine on torch's CUDA tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lse_core.errors import DTypeError, LSEError, ShapeError
from lse_export.errors import ExportError
from lse_export.metadata import FileFacts
from lse_export.tensorrt.library import load, require_gpu
from lse_export.tensorrt.rtx import RtxRunner
from lse_export.tensorrt.runner import Captured, Runner
from lse_export.tensorrt.sidecar import EngineFacts, check_files, check_machine, model_hash, read_facts

ALIGNMENT = 256  # bytes, of every address that TensorRT is given
MOST_GRAPHS = 8  # kept at a time; each holds its own activations


class Engine:
    """A TensorRT engine that takes and returns torch CUDA tensors without copies, on the caller's stream.

        engine = Engine("engine.plan")
        logits = engine(engine.read(["a.jpg", "b.jpg"]))["logits"]

    Calls return as soon as the work is queued on torch's current stream, like torch's own. One stream at a
    time: threads and streams that run side by side need an engine each.

    Args:
        path: an engine that `build_engine` wrote, its sidecar beside it.
        model: the ONNX file it must have been built from; None does not ask.
        device: CUDA device to run on; None takes torch's current one.
        cuda_graphs: capture a CUDA graph for each set of shapes and replay it, which saves the launches
            of small batches and costs a copy of inputs and outputs, and memory for each set of shapes.
            Engines of TensorRT for RTX use its own CUDA graphs instead.
        runtime_cache: for engines of TensorRT for RTX, which finish their kernels on the GPU when they first
            run: file of finished kernels to begin from, where it exists; `save_runtime_cache` writes it.

    Engines of TensorRT for RTX were built, but have never been run so far, since no RTX GPU was at hand.

    Raises:
        LSEError: a runtime cache for an engine of TensorRT 10 or 11.
        ExportError: no TensorRT of the flavour that built the engine, no GPU, files that are missing, changed
            or built from another model, for another GPU or by another TensorRT.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        model: str | Path | None = None,
        device: torch.device | str | None = None,
        cuda_graphs: bool = False,
        runtime_cache: str | Path | None = None,
    ) -> None:
        path = Path(path)
        self.facts: EngineFacts = read_facts(path)
        check_files(self.facts, path, Path(model) if model is not None else None)
        rtx = self.facts.flavour == "rtx"
        if runtime_cache is not None and not rtx:
            raise LSEError("only engines of TensorRT for RTX have a runtime cache; leave runtime_cache out")
        found = load(self.facts.flavour)
        self.device = require_gpu(device)
        name = torch.cuda.get_device_name(self.device)
        check_machine(self.facts, found.version, torch.cuda.get_device_capability(self.device), name)
        self._graphs: dict[tuple[tuple[int, ...], ...], Captured] | None = None
        if rtx:
            cache = Path(runtime_cache) if runtime_cache is not None else None
            self._runner: Runner = RtxRunner(path, self.device, cache, cuda_graphs)
        else:
            self._runner = Runner(found, path, self.device, self.facts.version_compatible)
            self._graphs = {} if cuda_graphs else None

    def __call__(self, inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run once.

        Args:
            inputs: tensors by input name, or the tensor itself where there is one input: on the engine's
                device, of its types, within the profile's shapes. What is not contiguous is copied.

        Returns:
            Outputs by name, new tensors.

        Raises:
            ShapeError, DTypeError: an input outside the profile, of another type or on another device.
            LSEError: inputs of other names.
        """
        if isinstance(inputs, Tensor):
            inputs = {next(iter(self.facts.inputs)): inputs}
        check_inputs(self.facts, inputs, self.device)
        ready = {name: tensor.detach().contiguous() for name, tensor in inputs.items()}
        for name, tensor in ready.items():
            if tensor.data_ptr() % ALIGNMENT:  # TensorRT cannot read it in place
                ready[name] = tensor.clone()
        with torch.cuda.device(self.device):
            if self._graphs is None:
                return self._runner.run(ready)
            return self._captured(ready).run(ready)

    def read(self, pictures: Sequence[str | Path]) -> Tensor:
        """Files of pictures as the engine takes them, one batch on its device.

        They are prepared as the model says, which its ONNX file and the engine's sidecar carry along.

        Raises:
            ExportError: the ONNX file said nothing of how pictures are prepared.
            PictureError: a file is no picture.
        """
        name, kind = next(iter(self.facts.inputs.items()))
        least, _, largest = self.facts.profile[name]
        sizes = tuple(low if low == high else None for low, high in zip(least, largest, strict=True))
        told = FileFacts(self.facts.model, self.facts.metadata, kind, sizes)
        return told.pictures().batch(pictures).to(self.device, getattr(torch, kind))

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in order; empty if the ONNX file has none."""
        return FileFacts(self.facts.model, self.facts.metadata).class_names()

    def _captured(self, inputs: dict[str, Tensor]) -> Captured:
        assert self._graphs is not None
        key = tuple(tuple(inputs[name].shape) for name in self.facts.inputs)
        if key not in self._graphs:
            while len(self._graphs) >= MOST_GRAPHS:
                torch.cuda.synchronize(self.device)  # the oldest may still be running
                del self._graphs[next(iter(self._graphs))]
            self._graphs[key] = Captured(self._runner, inputs)
        return self._graphs[key]

    def refit(self, model: str | Path) -> None:
        """Replace the weights by those of an ONNX file of the same graph, in this object, not on disk.

        Raises:
            ExportError: the engine was built without `refit`, or does not take these weights.
        """
        if not self.facts.refit:
            raise ExportError("the engine keeps its weights; build it with refit to replace them")
        path = Path(model)
        digest = model_hash(path)
        torch.cuda.synchronize(self.device)
        if self._graphs:
            self._graphs.clear()
        self._runner.refit(path)
        self.facts = self.facts.model_copy(update={"model": path.name, "model_hash": digest})

    def save_runtime_cache(self, path: str | Path) -> None:
        """Write the kernels that TensorRT for RTX has finished so far to a file for `runtime_cache`.

        Raises:
            LSEError: an engine of TensorRT 10 or 11, whose kernels are finished when it is built.
            OutputError: the file cannot be written.
        """
        if not isinstance(self._runner, RtxRunner):
            raise LSEError("only engines of TensorRT for RTX have a runtime cache to save")
        self._runner.save_cache(Path(path))


def check_inputs(facts: EngineFacts, inputs: Mapping[str, Tensor], device: torch.device) -> None:
    """Refuse what an engine cannot take; see `Engine.__call__`."""
    if set(inputs) != set(facts.inputs):
        raise LSEError(
            f"the engine's inputs are {', '.join(facts.inputs)}; got {', '.join(inputs) or 'none'}"
        )
    for name, tensor in inputs.items():
        if tensor.device != device:
            raise DTypeError(f"{name!r} must be on {device}; it is on {tensor.device}")
        if str(tensor.dtype) != f"torch.{facts.inputs[name]}":
            raise DTypeError(f"{name!r} must be {facts.inputs[name]}; it is {tensor.dtype}")
        least, _, largest = facts.profile[name]
        shape = list(tensor.shape)
        inside = [a <= n <= b for a, n, b in zip(least, shape, largest, strict=False)]
        if len(shape) != len(least) or not all(inside):
            raise ShapeError(
                f"{name!r} must be within {least} and {largest}, the profile; its shape is {shape}"
            )
