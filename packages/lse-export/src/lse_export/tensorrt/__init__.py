"""ONNX files to TensorRT engines, and engines run on torch's CUDA tensors: TensorRT 10, 11 and for RTX.

TensorRT is imported in `library.py` alone, when it is asked for; what needs no TensorRT works without it.
"""

from lse_export.tensorrt.build import EngineBuild, build_engine
from lse_export.tensorrt.engine import Engine
from lse_export.tensorrt.sidecar import EngineFacts, read_facts

__all__ = ["Engine", "EngineBuild", "EngineFacts", "build_engine", "read_facts"]
