"""Do ONNX Runtime's 8-bit kernels on this CPU compute what the file says? See `lse_export.saturation`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lse_export.runtime import open_session, run

__all__ = ["TOLERANCE", "kernel_difference"]

TOLERANCE = 0.01
"""Largest difference, of the output's range, between fast and precise kernels; 0 where no sum overflows.

With sums cut off it was 0.37 in the digits classifier of the tests, on an emulated CPU without VNNI.
"""


def kernel_difference(path: Path, batches: list[Tensor]) -> float:
    """Largest difference between ONNX Runtime's fast kernels on this CPU and its precise ones.

    Args:
        path: an ONNX file of one input.
        batches: inputs of the file.

    Returns:
        The difference, of the range of the output it is in; 0 where both are the same.

    Raises:
        ExportError: the file cannot be run.
    """
    fast, precise = open_session(path), open_session(path, precise=True)
    got: dict[str, list[Tensor]] = {}
    expected: dict[str, list[Tensor]] = {}
    for batch in batches:
        for session, into in ((fast, got), (precise, expected)):
            for name, value in run(session, batch).items():
                into.setdefault(name, []).append(value.double())
    worst = 0.0
    for name, values in expected.items():
        there, here = torch.cat(values), torch.cat(got[name])
        extent = max(float(there.max() - there.min()), 1e-3 * float(there.abs().max()), 1e-12)
        worst = max(worst, float((here - there).abs().max()) / extent)
    return worst
