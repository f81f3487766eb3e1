"""TensorRT's own reading of an ONNX file, the same for every flavour; needs no GPU, but TensorRT itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lse_export.errors import ExportError
from lse_export.tensorrt.bindings import Bindings
from lse_export.tensorrt.progress import interrupts

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Parsed", "Refusal", "parse", "read"]

SHOWN = 5  # parser errors in one message


@dataclass(frozen=True)
class Refusal:
    """One error of the parser.

    Attributes:
        node: name of the node it is about, or "".
        operator: the node's operator, or "".
        words: TensorRT's own, in one line.
    """

    node: str
    operator: str
    words: str

    def __str__(self) -> str:
        place = f"{self.operator} {self.node!r}: " if self.operator or self.node else ""
        return place + self.words[:200]


@dataclass(frozen=True)
class Parsed:
    """A file as TensorRT read it. All parts have to live as long as the network is used.

    Attributes:
        builder: what made the network, and builds it.
        network: strongly typed: every tensor has the type it has in the file.
        parser: what read it.
        log: what was logged.
        refusals: why it was not read; empty where it was.
    """

    builder: tensorrt.Builder
    network: tensorrt.INetworkDefinition
    parser: tensorrt.OnnxParser
    log: Any
    refusals: list[Refusal]


def read(found: Bindings, path: Path) -> Parsed:
    """Let TensorRT read an ONNX file; look at `refusals` for whether it did.

    Raises:
        ExportError: TensorRT cannot start.
        KeyboardInterrupt: the user stopped it; raised once the file is read, which takes about a second.
    """
    trt = found.trt
    log = found.Log()
    try:
        builder: tensorrt.Builder = trt.Builder(log)
    except TypeError as error:  # the binding's words for a builder that could not be made
        raise ExportError(f"{found.title} cannot start its builder{log.last()}") from error
    # in 10 one of two kinds, in 11 and in TensorRT for RTX the only one
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: tensorrt.INetworkDefinition = builder.create_network(strongly_typed)
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, log)
    stopped: list[bool] = []
    with interrupts(lambda: stopped.append(True)):
        taken = parser.parse_from_file(str(path))
    if stopped:
        raise KeyboardInterrupt
    if taken:
        return Parsed(builder, network, parser, log, [])
    return Parsed(builder, network, parser, log, _refusals(parser) or [Refusal("", "", "it says not why")])


def parse(found: Bindings, path: Path) -> Parsed:
    """Let TensorRT read an ONNX file.

    Raises:
        ExportError: TensorRT cannot start, or refuses the file; its own words, with the nodes they are about.
    """
    parsed = read(found, path)
    if parsed.refusals:
        texts = [str(refusal) for refusal in parsed.refusals]
        more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
        raise ExportError(f"{found.title} cannot read {path}: {'; '.join(texts[:SHOWN])}{more}")
    return parsed


def _refusals(parser: tensorrt.OnnxParser) -> list[Refusal]:
    found = []
    for k in range(parser.num_errors):
        error: tensorrt.ParserError = parser.get_error(k)
        words: str = error.desc()
        found.append(Refusal(error.node_name(), error.node_operator(), " ".join(words.split())))
    return found
