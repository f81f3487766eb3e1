"""Do ONNX Runtime's 8-bit kernels on this CPU compute what the file says? See `lse_export.saturation`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lse_export.runtime import open_session, run

__all__ = ["TOLERANCE", "kernel_difference"]

TOLERANCE = 0.05
"""Largest difference, of the output's range, that may lie between fast kernels and the file as written.

Kernels for eight bits round elsewhere than the file says: by at most 0.02 in the models of the tests. With
sums that were cut off it was 0.37.
"""


def kernel_difference(path: Path, batches: list[Tensor]) -> float:
    """Largest difference between ONNX Runtime's fast kernels on this CPU and the file run node by node.

    Args:
        path: an ONNX file of one input.
        batches: inputs of the file.

    Returns:
        The difference, of the range of the output it is in; about 0.01 is rounding.

    Raises:
        ExportError: the file cannot be run.
    """
    fast, plain = open_session(path), open_session(path, optimized=False)
    got: dict[str, list[Tensor]] = {}
    expected: dict[str, list[Tensor]] = {}
    for batch in batches:
        for session, into in ((fast, got), (plain, expected)):
            for name, value in run(session, batch).items():
                into.setdefault(name, []).append(value.double())
    worst = 0.0
    for name, values in expected.items():
        there, here = torch.cat(values), torch.cat(got[name])
        extent = max(float(there.max() - there.min()), 1e-3 * float(there.abs().max()), 1e-12)
        worst = max(worst, float((here - there).abs().max()) / extent)
    return worst
