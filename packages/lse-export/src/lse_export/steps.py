"""How many solver steps an export needs: measured on calibration images, not guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from lse_core.errors import LSEError
from lse_export.unroll import Unrolled, check_example, evaluating, recording, steps_of, with_steps

__all__ = ["StepChoice", "StepRow", "choose_steps"]


@dataclass(frozen=True)
class StepRow:
    """The model with one number of steps, against the converged solve.

    Attributes:
        steps: evaluations of every site's update.
        residual: largest residual over images and sites.
        deviation: largest difference of the outputs, relative to their range in the converged solve.
        agreement: share of images with the same largest score; 1.0 where outputs are no scores (B, C).
    """

    steps: int
    residual: float
    deviation: float
    agreement: float


@dataclass(frozen=True)
class StepChoice:
    """The measurement and what follows from it.

    Attributes:
        steps: the fewest steps from which on every deviation stays within the tolerance; where none
            do, the steps of the model itself.
        converged: whether the reference's residual met `residual_tolerance`.
        tolerance: largest deviation allowed.
        reference: steps of the converged solve.
        residual: largest residual of the reference.
        rows: one for every number of steps tried.
    """

    steps: int
    converged: bool
    tolerance: float
    reference: int
    residual: float
    rows: list[StepRow]

    @property
    def within(self) -> bool:
        """Whether some number of steps met the tolerance."""
        return any(row.steps == self.steps and row.deviation <= self.tolerance for row in self.rows)

    def summary(self) -> str:
        """One line: the choice and its ground, or why there is none."""
        if not self.converged:
            return (
                f"no converged solve to compare with: after {self.reference} steps the residual is still "
                f"{self.residual:.2g}, so the update contracts slowly or not at all; "
                f"keeping {self.steps} steps"
            )
        if not self.within:
            return (
                f"no number of steps tried stays within {self.tolerance:g} of the converged output; "
                f"keeping the model's {self.steps}"
            )
        return (
            f"the fewest steps within {self.tolerance:g} of the output of {self.reference}: {self.steps} "
            f"(residual of the latter {self.residual:.2g})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "within": self.within}


def choose_steps(
    model: nn.Module,
    images: Tensor,
    *,
    tolerance: float = 1e-3,
    candidates: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16),
    reference: int = 64,
    residual_tolerance: float = 1e-3,
    batch: int = 32,
) -> StepChoice:
    """Find the fewest solver steps whose outputs stay within `tolerance` of the converged solve's.

    A number of steps counts only if all larger candidates keep the tolerance too, so a lucky early
    crossing is not mistaken for convergence.

    Args:
        model: an adapted model; left as it was.
        images: (n, C, H, W) calibration images as the model wants them.
        tolerance: largest deviation of an output, relative to the range of that output.
        candidates: numbers of steps to try.
        reference: steps taken as converged.
        residual_tolerance: residual (root mean square of log-slopes) below which the reference
            counts as converged.
        batch: images a forward pass.

    Raises:
        LSEError: no solver to take steps, or settings out of range.
        ShapeError, DTypeError, NotFiniteError: `images` are no finite images.
    """
    own = steps_of(model)
    if not own:
        raise LSEError(f"{type(model).__name__} has no solver whose steps could be chosen; adapt it first")
    tried = sorted(set(candidates))
    if not tried or tried[0] < 1 or tried[-1] >= reference:
        raise LSEError(f"candidates must be at least 1 and below the reference's {reference}; got {tried}")
    if not tolerance > 0:
        raise LSEError(f"the tolerance must be above 0; got {tolerance!r}")
    images = check_example(model, images)
    with evaluating(model):
        converged, residual = _solve(model, images, reference, batch)
        rows = []
        for steps in tried:
            outputs, left = _solve(model, images, steps, batch)
            pairs = list(zip(outputs, converged, strict=True))
            off = max(float((a - b).abs().max() / (b.max() - b.min()).clamp_min(1e-12)) for a, b in pairs)
            same = [float((a.argmax(1) == b.argmax(1)).float().mean()) for a, b in pairs if a.ndim == 2]
            rows.append(StepRow(steps, left, off, min(same, default=1.0)))
    met = residual <= residual_tolerance
    within = list(takewhile(lambda row: row.deviation <= tolerance, reversed(rows)))
    chosen = within[-1].steps if met and within else max(own.values())
    return StepChoice(chosen, met, tolerance, reference, residual, rows)


def _solve(model: nn.Module, images: Tensor, steps: int, batch: int) -> tuple[list[Tensor], float]:
    """Outputs for all images, and the largest residual."""
    parts: list[tuple[Tensor, ...]] = []
    worst = 0.0
    with with_steps(model, steps), recording(model) as record:
        for chunk in images.split(batch):
            parts.append(Unrolled(model)(chunk))
            for answer in record.values():
                if answer.solution is not None:
                    worst = max(worst, float(answer.solution.residual.max()))
    return [torch.cat(column) for column in zip(*parts, strict=True)], worst
