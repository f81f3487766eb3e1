"""The part of a build that calls TensorRT for RTX, ahead of time: it needs no GPU and asks for none."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lse_core.errors import LSEError
from lse_export.errors import ExportError
from lse_export.tensorrt.bindings import Bindings, load
from lse_export.tensorrt.builder import Built, configure, make_plan
from lse_export.tensorrt.library import flavour_of, require_tensorrt
from lse_export.tensorrt.options import BuildOptions
from lse_export.tensorrt.parser import parse
from lse_export.tensorrt.profile import Shapes
from lse_export.tensorrt.progress import BuildProgress

if TYPE_CHECKING:
    import tensorrt_rtx

__all__ = [
    "capabilities",
    "known_capabilities",
    "layers_of",
    "refuse_options",
    "rtx_here",
    "serialize",
]

REFUSED = {
    "refit": "without a GPU it cannot build engines whose weights can be replaced",
    "version_compatible": "the library that such engines need is not part of it",
    "hardware_compatible": "its engines are built for compute capabilities; name these instead",
}
ON_REQUEST = ("7.5",)  # built for only when asked: 7.5 has no float32 products


def refuse_options(options: BuildOptions, timing_cache: object, device: object) -> None:
    """Refuse what TensorRT for RTX does not do, with the reason.

    Raises:
        LSEError: an option of TensorRT 10 and 11 is on, or a timing cache or a device is given.
    """
    reasons = {name: reason for name, reason in REFUSED.items() if getattr(options, name)}
    if timing_cache is not None:
        reasons["timing_cache"] = "it times no kernels when it builds, so there is nothing to keep"
    if device is not None:
        reasons["device"] = "it builds for compute capabilities, not for a GPU at hand"
    for name, reason in reasons.items():
        raise LSEError(f"TensorRT for RTX takes no {name.replace('_', '-')}: {reason}")


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


def rtx_here() -> str:
    """Whether engines for RTX GPUs can be built here, in one line, for `lse doctor`."""
    wanted = flavour_of("rtx")
    try:
        version = require_tensorrt("rtx")
    except ExportError:
        return f"no {wanted.title} ({wanted.install})"
    return f"{wanted.title} {version}: builds for {', '.join(known_capabilities())}, no GPU needed"


def serialize(
    path: Path, shapes: Shapes, options: BuildOptions, targets: Sequence[str], progress: BuildProgress
) -> Built:
    """Parse the ONNX file and build it.

    Args:
        path: an ONNX file that passed the gate.
        shapes: least, usual and largest shape of every input.
        options: how to build.
        targets: compute capabilities, as `capabilities` returned them.
        progress: told of every phase.

    Raises:
        ExportError: TensorRT for RTX cannot start, read the file or build it.
        KeyboardInterrupt: the user stopped the build.
    """
    found = load("rtx")
    parsed = parse(found, path)
    config: tensorrt_rtx.IBuilderConfig = configure(found, parsed, path, shapes, options)
    _aim(found, config, targets, parsed.log)
    plan = make_plan(found, parsed, config, path, progress)
    return Built(plan, b"", json.dumps({"Layers": layers_of(parsed.log.layers)}))


def _aim(found: Bindings, config: tensorrt_rtx.IBuilderConfig, targets: Sequence[str], log: Any) -> None:
    trt = found.trt
    config.num_compute_capabilities = len(targets)
    for k, target in enumerate(targets):
        member: tensorrt_rtx.ComputeCapability = trt.ComputeCapability.__members__[
            "SM" + target.replace(".", "")
        ]
        if not config.set_compute_capability(member, k):
            raise ExportError(f"{found.title} refuses the compute capability {target}{log.last()}")


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
    for line in message.splitlines():
        match = _LAYER.fullmatch(line.strip())
        if match is None:
            continue
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
