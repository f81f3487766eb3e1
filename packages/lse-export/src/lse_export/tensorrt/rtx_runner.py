"""The part of running an engine of TensorRT for RTX that is its own: validity, runtime cache, CUDA graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lse_core.atomic import replacing
from lse_export.errors import ExportError
from lse_export.tensorrt.bindings import load
from lse_export.tensorrt.runner import Runner

if TYPE_CHECKING:
    import tensorrt_rtx

__all__ = ["RtxRunner"]


class RtxRunner(Runner):
    """A loaded engine of TensorRT for RTX. Its kernels are finished on the GPU, when they first run.

    Never run so far: nobody has had an RTX GPU at hand.

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
            text = ", ".join(reasons) or "it says not why"
            raise ExportError(f"{self.found.title} cannot run {path} here: {text}{self.log.last()}")

    def make_context(self) -> tensorrt_rtx.IExecutionContext | None:
        """An execution context with the runtime cache and, where asked for, CUDA graphs."""
        trt = self.found.trt
        engine: tensorrt_rtx.ICudaEngine = self.engine
        config: tensorrt_rtx.IRuntimeConfig = engine.create_runtime_config()
        if self.cache is None:
            cache: tensorrt_rtx.IRuntimeCache = config.create_runtime_cache()
            if self.cache_file is not None and self.cache_file.is_file():
                cache.deserialize(self.cache_file.read_bytes())  # one that does not fit is left out
            self.cache = cache
        config.set_runtime_cache(self.cache)
        if self.cuda_graphs:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context: tensorrt_rtx.IExecutionContext | None = engine.create_execution_context(config)
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
