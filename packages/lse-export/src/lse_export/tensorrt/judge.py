"""NVIDIA's own parser as a judge of ONNX files, beside the gate's rules; needs TensorRT and no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lse_core.errors import LSEError
from lse_export.errors import ExportError
from lse_export.gate import GateReport, Problem
from lse_export.tensorrt.bindings import Bindings, load
from lse_export.tensorrt.library import major_of
from lse_export.tensorrt.parser import read

__all__ = ["parsed_reports"]

FLAVOUR_OF = {"tensorrt10": "tensorrt", "tensorrt11": "tensorrt", "tensorrt-rtx": "rtx"}


def parsed_reports(reports: Sequence[GateReport], strict: bool) -> list[GateReport]:
    """The reports, those of TensorRT with what its installed parser says of the file.

    A file that the gate found to be no valid ONNX is not handed over: on such files the parser can crash. A
    parser's answer goes to the report of its own flavour and major release alone.

    Args:
        reports: what the gate found, of one file by target.
        strict: whether the targets were asked for by name: then a flavour that is not installed is an error.

    Raises:
        ExportError: `strict`, and a target's TensorRT is not installed or is of the other major release.
        LSEError: no target is TensorRT's, or, unless `strict`, none is installed.
    """
    if not any(report.target in FLAVOUR_OF for report in reports):
        raise LSEError(f"only targets of TensorRT have a parser to ask: {', '.join(FLAVOUR_OF)}")
    judged, missing = [], []
    for report in reports:
        try:
            found = _bindings_for(report.target)
        except ExportError as error:
            if strict:
                raise
            missing.append(error)
            found = None
        judged.append(report if found is None else _judge(report, found))
    if not any(report.parser for report in judged) and missing:
        raise missing[-1]
    return judged


def _bindings_for(target: str) -> Bindings | None:
    """The parser of a target; None where the target is not TensorRT's."""
    flavour = FLAVOUR_OF.get(target)
    if flavour is None:
        return None
    found = load(flavour)
    if flavour == "tensorrt" and target != f"tensorrt{major_of(found.trt.__version__)}":
        raise ExportError(f"the parser of {target} cannot be asked: {found.title} is installed")
    return found


def _judge(report: GateReport, found: Bindings) -> GateReport:
    if any(problem.rule == "valid" for problem in report.problems):
        return report
    problems = [
        Problem("parser", refusal.node, refusal.operator, f"{found.title} says: {refusal.words[:240]}",
                "write the model with other operators, or see the problems above")
        for refusal in read(found, report.path).refusals
    ]  # fmt: skip
    return replace(report, problems=[*report.problems, *problems], parser=found.title)
