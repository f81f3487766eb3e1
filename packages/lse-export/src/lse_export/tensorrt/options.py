"""How an engine is built."""

from __future__ import annotations

from dataclasses import dataclass

from lse_core.errors import LSEError

__all__ = ["BuildOptions"]


@dataclass(frozen=True)
class BuildOptions:
    """Settings of the builder. Precision is none of them: types are those of the ONNX file.

    Attributes:
        workspace_gib: scratch memory a layer may take, in GiB; None leaves it to TensorRT (all there is).
        optimization_level: 0 (fast to build) to 5 (tries most kernels); None is TensorRT's default, 3.
        version_compatible: later releases of the same major can load the engine, which grows and may slow
            down a little.
        hardware_compatible: all GPUs since Ampere can load it, at some cost in speed.
        refit: weights can be replaced without building again.
        tf32: let float32 products be computed with TF32's 10 bits of mantissa. Off, unlike TensorRT's
            default and like torch's, so that the engine computes what the model computes.

    Raises:
        LSEError: a setting out of range.
    """

    workspace_gib: float | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.workspace_gib is not None and not self.workspace_gib > 0:
            raise LSEError(f"workspace must be positive, in GiB; got {self.workspace_gib}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise LSEError(f"optimization level must be within 0 and 5; got {self.optimization_level}")
