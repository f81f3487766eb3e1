"""What TensorRT for RTX alone has: engines for compute capabilities, built without a GPU, and its caches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lse_core.atomic import replacing
from lse_core.errors import LSEError
from lse_export.errors import ExportError
from lse_export.tensorrt.library import Bindings, load, need
from lse_export.tensorrt.runner import Runner

if TYPE_CHECKING:
    import tensorrt_rtx


ON_REQUEST = ("7.5",)  # built for only when asked: 7.5 has no float32 products


def known_capabilities() -> list[str]:
    """Compute capabilities that the installed TensorRT for RTX can build for, such as "8.6", in order.

    Raises:
        ExportError: it is not installed or does not load.
    """
    members: dict[str, Any] = load("rtx").trt.ComputeCapability.__members__
    numbers = sorted(int(name[2:]) for name in members if re.fullmatch(r"SM[0-9]+", name))
    return [f"{number // 10}.{number % 10}" for number in numbers]


def capabilities(asked: Sequence[str]) -> list[str]:
    """Compute capabilities to build for: those asked, each once, or all but those built on request only.

    Raises:
        LSEError: one that the library does not know.
        ExportError: TensorRT for RTX is not installed or does not load.
    """
    known = known_capabilities()
    for capability in asked:
        if capability not in known:
            raise LSEError(
                f"TensorRT for RTX knows no compute capability {capability!r}; it knows {', '.join(known)}"
            )
    return [c for c in known if c in asked or (not asked and c not in ON_REQUEST)]


def aim(found: Bindings, config: tensorrt_rtx.IBuilderConfig, targets: Sequence[str], log: Any) -> None:
    """Let a build be for the compute capabilities `targets`, as `capabilities` returned them.

    Raises:
        ExportError: TensorRT refuses one.
    """
    trt = found.trt
    config.num_compute_capabilities = len(targets)
    for k, target in enumerate(targets):
        name = "SM" + target.replace(".", "")
        member: tensorrt_rtx.ComputeCapability = trt.ComputeCapability.__members__[name]
        taken = config.set_compute_capability(member, k)
        need(taken, log, f"{found.title} refuses the compute capability {target}")


_LAYER = re.compile(
    r"Name: (?P<Name>.*?), LayerType: (?P<LayerType>.*?), Inputs: \[(?P<Inputs>.*?)\], "
    r"Constants: \[(?P<Constants>.*?)\], Outputs: \[(?P<Outputs>.*?)\], TacticName: (?P<TacticName>.*?), "
    r"StreamId: (?P<StreamId>\d+),.*? Metadata: ?(?P<Metadata>.*)"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[(.*?)\],.*?Datatype: (.*?), Format:")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")


def layers_of(message: str) -> list[dict[str, Any]]:
    """Layers of an engine, from the message of TensorRT for RTX that begins with "Layers:".

    Each is a dict of "Name", "LayerType", "TacticName", "StreamId", "Nodes" (ONNX nodes that went into it),
    and "Inputs", "Constants" and "Outputs", lists of dicts of "Name", "Dimensions" and "Datatype".
    """
    layers = []
    for match in filter(None, (_LAYER.fullmatch(line.strip()) for line in message.splitlines())):
        layer: dict[str, Any] = {k: match[k] for k in ("Name", "LayerType", "TacticName")}
        layer["StreamId"] = int(match["StreamId"])
        for key in ("Inputs", "Constants", "Outputs"):
            layer[key] = [
                {"Name": name, "Dimensions": [int(n) for n in sizes.split(",") if n], "Datatype": kind}
                for name, sizes, kind in _TENSOR.findall(match[key])
            ]
        layer["Nodes"] = _NODE.findall(match["Metadata"])
        layers.append(layer)
    return layers


class RtxRunner(Runner):
    """A loaded engine of TensorRT for RTX. Its kernels are finished on the GPU, when they first run.

    It has never been run so far, since no RTX GPU was at hand.

    Args:
        path: the engine.
        device: CUDA device it runs on.
        runtime_cache: file of finished kernels to begin from, where it exists and fits; see `save_cache`.
        cuda_graphs: let TensorRT capture whole runs in CUDA graphs of its own.

    Raises:
        ExportError: the engine is not for this release, this GPU or this driver, or cannot be loaded.
    """

    def __init__(
        self, path: Path, device: torch.device, runtime_cache: Path | None = None, cuda_graphs: bool = False
    ) -> None:
        self.cuda_graphs, self.cache_file = cuda_graphs, runtime_cache
        self.cache: tensorrt_rtx.IRuntimeCache | None = None
        super().__init__(load("rtx"), path, device)

    def check(self, path: Path) -> None:
        """Ask TensorRT, which reads the engine's header alone, whether it can run here."""
        trt = self.found.trt
        runtime: tensorrt_rtx.Runtime = self.runtime
        with path.open("rb") as file:
            header = file.read(runtime.engine_header_size)
        validity, why = runtime.get_engine_validity(header)
        if validity == trt.EngineValidity.INVALID:
            bits = trt.EngineInvalidityDiagnostics.__members__
            reasons = [name.lower().replace("_", " ") for name, bit in bits.items() if why & int(bit)]
            text = ", ".join(reasons) or "it gives no reason"
            raise ExportError(f"{self.found.title} cannot run {path} here: {text}{self.log.last()}")

    def make_context(self) -> tensorrt_rtx.IExecutionContext | None:
        """An execution context with the runtime cache and, where asked for, CUDA graphs."""
        trt = self.found.trt
        engine: tensorrt_rtx.ICudaEngine = self.engine
        settings: tensorrt_rtx.IRuntimeConfig = engine.create_runtime_config()
        if self.cache is None:
            cache: tensorrt_rtx.IRuntimeCache = settings.create_runtime_cache()
            if self.cache_file is not None and self.cache_file.is_file():
                cache.deserialize(self.cache_file.read_bytes())  # one that does not fit is left out
            self.cache = cache
        settings.set_runtime_cache(self.cache)
        if self.cuda_graphs:
            settings.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context: tensorrt_rtx.IExecutionContext | None = engine.create_execution_context(settings)
        return context

    def save_cache(self, path: Path) -> None:
        """Write the kernels finished so far, for the next process on this machine to begin from.

        Raises:
            OutputError: the file cannot be written.
        """
        cache: tensorrt_rtx.IRuntimeCache | None = self.cache
        assert cache is not None
        with replacing(path, overwrite=True) as target:
            target.write_bytes(bytes(cache.serialize()))
