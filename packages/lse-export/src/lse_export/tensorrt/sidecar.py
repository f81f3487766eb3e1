"""What an engine is for and was built from: a profile of shapes, and a JSON file checked on loading."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from lse_core.errors import LSEError, unknown_name
from lse_core.settings import Settings, validated
from lse_export.errors import ExportError
from lse_export.gate.graph import Model, inputs_of, load_proto, weight_files
from lse_export.tensorrt.library import major_of

Range = tuple[int, int, int]
"""Least, usual and largest size of an axis."""

Shapes = dict[str, tuple[list[int], list[int], list[int]]]
"""Least, usual and largest shape of every input, by its name."""

BATCH: Range = (1, 8, 32)
"""Range of the batch axis where none is given."""


def parse_axis(text: str) -> tuple[str, Range]:
    """Read "batch=1:8:32", or "batch=8" for a single size.

    Raises:
        LSEError: anything else.
    """
    name, _, sizes = text.partition("=")
    numbers = [int(n) if n.isdigit() else 0 for n in sizes.split(":")]
    if not name or len(numbers) not in (1, 3) or 0 in numbers:
        raise LSEError(f"{text!r} is not a range of an axis; write NAME=MIN:OPT:MAX, such as batch=1:8:32")
    least, usual, largest = numbers if len(numbers) == 3 else numbers * 3
    return name, (least, usual, largest)


def parse_shapes(text: str) -> tuple[str, tuple[list[int], list[int], list[int]]]:
    """Read "image=1x3x8x8:4x3x8x8:8x3x8x8", an input's least, usual and largest shape.

    Raises:
        LSEError: anything else.
    """
    name, _, rest = text.partition("=")
    shapes = [[int(n) if n.isdigit() else 0 for n in shape.split("x")] for shape in rest.split(":")]
    if not name or len(shapes) != 3 or len({len(s) for s in shapes}) != 1 or any(0 in s for s in shapes):
        raise LSEError(
            f"{text!r} is not a profile of an input; write NAME=MIN:OPT:MAX, "
            "such as image=1x3x224x224:8x3x224x224:32x3x224x224"
        )
    return name, (shapes[0], shapes[1], shapes[2])


def profile_shapes(model: Model, axes: Mapping[str, Range] | None = None) -> Shapes:
    """Shapes of a file's inputs at the least, usual and largest sizes of its axes.

    Args:
        model: the file.
        axes: ranges by the axis's name in the file; an axis without a name is called "INPUT.K", K counting
            from 0. The first axis of an input may be left out (`BATCH`), others not.

    Raises:
        UnknownNameError: the file has no such axis.
        ExportError: an axis without a range, or an input that is no tensor.
        LSEError: sizes that are not 1 <= least <= usual <= largest.
    """
    given = dict(axes or {})
    for name, (least, usual, largest) in given.items():
        if not 1 <= least <= usual <= largest:
            raise LSEError(f"axis {name!r}: sizes must rise from 1; got {least}, {usual}, {largest}")
    known: set[str] = set()
    shapes: Shapes = {}
    for value in inputs_of(model.proto.graph):
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            raise ExportError(f"{model.path}: input {value.name!r} is not a tensor of known rank")
        sizes: list[Range] = []
        for k, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                sizes.append((dim.dim_value, dim.dim_value, dim.dim_value))
                continue
            name = dim.dim_param or f"{value.name}.{k}"
            known.add(name)
            if name not in given and k > 0:
                raise ExportError(
                    f"axis {name!r} of input {value.name!r} varies and has no range; give it as "
                    f"--axis {name}=MIN:OPT:MAX"
                )
            sizes.append(given.get(name, BATCH))
        shapes[value.name] = ([s[0] for s in sizes], [s[1] for s in sizes], [s[2] for s in sizes])
    for name in given:
        if name not in known:
            raise unknown_name("axis that varies", name, known)
    return shapes


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
        version_compatible: this and the next four are settings of the build, see `BuildOptions`.
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
        raise ExportError(f"{path} was changed or truncated after it was built; build it again")
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
