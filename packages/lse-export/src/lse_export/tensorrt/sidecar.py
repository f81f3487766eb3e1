"""What an engine was built from and for: a JSON file beside it, checked before the engine is loaded."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from lse_core.errors import LSEError
from lse_core.settings import Settings, validated
from lse_export.errors import ExportError
from lse_export.gate.graph import load_proto, weight_files
from lse_export.tensorrt.library import major_of
from lse_export.tensorrt.profile import Shapes

__all__ = ["EngineFacts", "check_files", "check_machine", "model_hash", "read_facts", "sidecar_of"]


class EngineFacts(Settings):
    """Contents of the sidecar; what a later version writes beside these is left out when it is read.

    Attributes:
        tensorrt: version that built the engine, such as "10.16.1.11", or "1.7.1.116" of TensorRT for RTX.
        gpu: name of the GPU it was built on; "" where it was built without one.
        compute_capability: of that GPU, (major, minor); (0, 0) where it was built without one.
        precision: floating and quantized types that the model computes in, such as "float16, float32".
        profile: least, usual and largest shape of every input.
        inputs: type names ("float32", ...) of the inputs, by name.
        outputs: type names of the outputs, by name.
        model: file name of the ONNX model.
        model_hash: SHA-256 of that file and of the weights kept beside it.
        engine_hash: SHA-256 of the engine.
        version_compatible: whether later TensorRT releases of the same major can load it.
        hardware_compatible: whether all GPUs since Ampere can.
        refit: whether its weights can be replaced.
        tf32: whether float32 products may be computed with TF32's 10 bits of mantissa.
        optimization_level: the builder's, 0 to 5; None for its default.
        flavour: the product line that built it, a key of `lse_export.tensorrt.library.FLAVOURS`.
        compute_capabilities: those it was built for, such as "8.6", where it was built without a GPU.
        metadata: what a client needs of the ONNX file's metadata, see `lse_export.metadata.CARRIED`.
    """

    model_config = ConfigDict(extra="ignore")

    tensorrt: str
    gpu: str
    compute_capability: tuple[int, int]
    precision: str
    profile: Shapes
    inputs: dict[str, str]
    outputs: dict[str, str]
    model: str
    model_hash: str
    engine_hash: str
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    tf32: bool = False
    optimization_level: int | None = None
    flavour: Literal["tensorrt", "rtx"] = "tensorrt"
    compute_capabilities: tuple[str, ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict)


def sidecar_of(path: Path) -> Path:
    """Where the facts of an engine lie: "engine.plan.json" beside "engine.plan"."""
    return path.with_name(f"{path.name}.json")


def read_facts(path: str | Path) -> EngineFacts:
    """Facts of the engine at `path`.

    Raises:
        ExportError: the engine or its sidecar is missing, or the sidecar cannot be read.
    """
    path = Path(path)
    beside = sidecar_of(path)
    for file in (path, beside):
        if not file.is_file():
            raise ExportError(f"{file}: no such file; build the engine with lse export tensorrt")
    try:
        return validated(EngineFacts, json.loads(beside.read_text("utf-8")))
    except (LSEError, ValueError, RecursionError) as error:
        raise ExportError(f"{beside} does not describe an engine ({error}); build it again") from error


def check_files(facts: EngineFacts, path: Path, model: Path | None = None) -> None:
    """The engine must be the one described, and built from `model` where that is given; else ExportError."""
    if _hash([path]) != facts.engine_hash:
        raise ExportError(f"{path} was changed or cut short since it was built; build it again")
    if model is not None and model_hash(model) != facts.model_hash:
        raise ExportError(
            f"{path} was built from another model than {model} ({facts.model} as it was then); build it again"
        )


def check_machine(facts: EngineFacts, tensorrt: str, capability: tuple[int, int], gpu: str) -> None:
    """Refuse an engine that this release of TensorRT cannot load, or not on this GPU.

    Args:
        facts: the engine's.
        tensorrt: the release that is installed here, of the engine's flavour.
        capability: compute capability of the GPU here, (major, minor).
        gpu: name of the GPU here.

    Raises:
        ExportError: another release built it, or it was built for another GPU.
    """
    rtx = facts.flavour == "rtx"
    title = "TensorRT for RTX" if rtx else "TensorRT"
    built = f"the engine was built by {title} {facts.tensorrt}"
    if not rtx and major_of(facts.tensorrt) != major_of(tensorrt):
        raise ExportError(f"{built} and this is {tensorrt}: another major; build it again here")
    if facts.version_compatible:
        if _numbers(tensorrt) < _numbers(facts.tensorrt):
            raise ExportError(f"{built}, newer than {tensorrt} here; upgrade")
    elif facts.tensorrt != tensorrt:
        other = "" if rtx else ", or build it version-compatible"
        raise ExportError(f"{built} and this is {tensorrt}; build it again here{other}")
    here = f"{gpu} ({_dotted(capability)})"
    if rtx:
        if _dotted(capability) not in facts.compute_capabilities:
            raise ExportError(
                f"the engine was built for compute capabilities {', '.join(facts.compute_capabilities)} and "
                f"this is {here}; build it again for that where TensorRT for RTX knows it, or with "
                "TensorRT 10 or 11"
            )
    elif facts.hardware_compatible:
        if capability < (8, 0):
            raise ExportError(f"the engine runs on GPUs since Ampere (8.0); this is {here}")
    elif facts.compute_capability != capability:
        raise ExportError(
            f"the engine was built for {facts.gpu} (compute capability "
            f"{_dotted(facts.compute_capability)}) and this is {here}; build it again here, or build it "
            "hardware-compatible"
        )
    elif facts.gpu != gpu:
        warnings.warn(f"the engine was tuned on {facts.gpu} and may run slower on {gpu}", stacklevel=3)


def model_hash(path: Path) -> str:
    """SHA-256 of an ONNX file and of the files that hold its external weights, in the order of their names.

    Raises:
        ExportError: one of them cannot be read.
    """
    graph = load_proto(path).graph
    return _hash([path, *(path.parent / name for name in weight_files(path, graph))])


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        except OSError as error:
            raise ExportError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
