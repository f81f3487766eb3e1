"""Reading an ONNX file by TensorRT's own parser, for every flavour; it needs TensorRT, but no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lse_core.errors import LSEError
from lse_export.errors import ExportError
from lse_export.gate import GateReport, Problem
from lse_export.tensorrt.library import Bindings, interrupts, load, major_of

if TYPE_CHECKING:
    import tensorrt


SHOWN = 5  # parser errors in one message
FIX = "write the model with other operators, or see the problems above"
FLAVOUR_OF = {"tensorrt10": "tensorrt", "tensorrt11": "tensorrt", "tensorrt-rtx": "rtx"}


@dataclass(frozen=True)
class Parsed:
    """A file as TensorRT read it. All parts have to live as long as the network is used.

    Attributes:
        builder: made the network, and can build it.
        network: strongly typed: every tensor has the type it has in the file.
        parser: read the file.
        log: a `Bindings.Log`.
        refusals: why the file was not read, in TensorRT's own words; empty where it was.
    """

    builder: tensorrt.Builder
    network: tensorrt.INetworkDefinition
    parser: tensorrt.OnnxParser
    log: Any
    refusals: list[Problem]


def read(found: Bindings, path: Path) -> Parsed:
    """Let TensorRT read an ONNX file; `refusals` says whether it could.

    Raises:
        ExportError: TensorRT cannot start.
        KeyboardInterrupt: the user stopped it; raised once the file is read, which takes about a second.
    """
    trt = found.trt
    log = found.Log()
    try:
        builder: tensorrt.Builder = trt.Builder(log)
    except TypeError as error:  # the binding raises it for a builder that could not be made
        raise ExportError(f"{found.title} cannot start its builder{log.last()}") from error
    # in 10 one of two kinds, in 11 and in TensorRT for RTX the only one
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: tensorrt.INetworkDefinition = builder.create_network(strongly_typed)
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, log)
    with interrupts():
        taken = parser.parse_from_file(str(path))
    refusals = []
    for k in range(0 if taken else parser.num_errors):
        fault: tensorrt.ParserError = parser.get_error(k)
        words: str = fault.desc()
        words = " ".join(words.split())
        refusals.append(Problem("parser", fault.node_name(), fault.node_operator(), words, FIX))
    if not taken and not refusals:
        refusals = [Problem("parser", "", "", "the parser gives no reason", FIX)]
    return Parsed(builder, network, parser, log, refusals)


def parse(found: Bindings, path: Path) -> Parsed:
    """Let TensorRT read an ONNX file.

    Raises:
        ExportError: TensorRT cannot start, or refuses the file; its own words, with the nodes they are about.
    """
    parsed = read(found, path)
    if parsed.refusals:
        texts = [f"{refusal.place}{refusal.what[:200]}" for refusal in parsed.refusals]
        more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
        raise ExportError(f"{found.title} cannot read {path}: {'; '.join(texts[:SHOWN])}{more}")
    return parsed


def parsed_reports(reports: Sequence[GateReport], strict: bool) -> list[GateReport]:
    """Add to the gate's reports what the TensorRT that is installed says of the file when it parses it.

    A file that the gate found to be no valid ONNX is not handed over: on such files the parser can crash. A
    parser's answer goes only to the report of its own flavour and major release.

    Args:
        reports: what the gate found, of one file by target.
        strict: whether the targets were asked for by name: then a flavour that is not installed is an error.

    Raises:
        ExportError: `strict`, and a target's TensorRT is not installed or is of the other major release.
        LSEError: no target is TensorRT's, or, unless `strict`, none is installed.
    """
    if not any(report.target in FLAVOUR_OF for report in reports):
        raise LSEError(f"only targets of TensorRT have a parser to ask: {', '.join(FLAVOUR_OF)}")
    judged = list(reports)
    missing: ExportError | None = None
    for k, report in enumerate(reports):
        try:
            judged[k] = _judged(report)
        except ExportError as error:
            if strict:
                raise
            missing = error
    if missing is not None and not any(report.parser for report in judged):
        raise missing
    return judged


def _judged(report: GateReport) -> GateReport:
    flavour = FLAVOUR_OF.get(report.target)
    if flavour is None:
        return report
    found = load(flavour)
    if flavour == "tensorrt" and report.target != f"tensorrt{major_of(found.version)}":
        raise ExportError(f"the parser of {report.target} cannot be asked: {found.title} is installed")
    if any(problem.rule == "valid" for problem in report.problems):
        return report
    refusals = read(found, report.path).refusals
    problems = [replace(refusal, what=f"{found.title} says: {refusal.what[:240]}") for refusal in refusals]
    return replace(report, problems=[*report.problems, *problems], parser=found.title)
