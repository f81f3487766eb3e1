"""What the tables say: numbers of one row beside the row it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from costs.timing import Ratio, ratio

__all__ = ["Cost", "Floor", "cost", "floor", "row"]

Record = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """A row against its base; None where a way of running does not tell.

    Attributes:
        milliseconds: median of a call.
        time: ratio of times.
        flops: an image, in 10^9; `flops_ratio` to the base's.
        kernels, syncs: a call.
        peak: MiB above the resting level; `peak_ratio` to the base's.
    """

    milliseconds: float
    time: Ratio
    flops: float | None
    flops_ratio: float | None
    kernels: int | None
    syncs: int | None
    peak: float
    peak_ratio: float

    @property
    def overhead(self) -> float:
        """Time added, percent."""
        return 100 * (self.time.median - 1)


@dataclass(frozen=True)
class Floor:
    """Least time for what the default DEC adds, beside the time it took.

    Attributes:
        flops, kernels: added by it, a call.
        bytes: of the sites' features, each read to be reduced, read to be warped, and written.
        by_flops: milliseconds at the rate of the base model.
        by_bytes: milliseconds at the speed of a copy.
        measured: milliseconds added, median over the rounds.
    """

    flops: int
    kernels: int | None
    bytes: int
    by_flops: float
    by_bytes: float
    measured: float

    @property
    def least(self) -> float:
        """The larger of the two bounds, milliseconds."""
        return max(self.by_flops, self.by_bytes)


def row(record: Record, name: str) -> Record:
    """The row of that name."""
    found: Record = next(r for r in record["rows"] if r["name"] == name)
    return found


def cost(record: Record, name: str) -> Cost | None:
    """Of one row, None if it did not run."""
    this = row(record, name)
    base = row(record, this["against"])
    if this["error"] or base["error"]:
        return None
    mine, other = this["counts"], base["counts"]
    batch = record["case"]["batch"]
    flops, of_base = mine["flops"], other["flops"]
    return Cost(
        milliseconds=1e3 * median(this["seconds"]),
        time=ratio(this["seconds"], base["seconds"]),
        flops=None if flops is None else flops / batch / 1e9,
        flops_ratio=None if flops is None or not of_base else flops / of_base,
        kernels=mine["kernels"],
        syncs=mine["syncs"],
        peak=mine["peak"] / 2**20,
        peak_ratio=mine["peak"] / max(other["peak"], 1),
    )


def floor(record: Record, bandwidth: float) -> Floor:
    """Of the default DEC in an inference record; `bandwidth` in bytes a second."""
    base, ours = row(record, "base"), row(record, "adapted")
    flops = ours["counts"]["flops"] - base["counts"]["flops"]
    rate = base["counts"]["flops"] / median(base["seconds"])
    touched = 3 * sum(record["features"].values())
    kernels = ours["counts"]["kernels"]
    added = [a - b for a, b in zip(ours["seconds"], base["seconds"], strict=True)]
    return Floor(
        flops=flops,
        kernels=None if kernels is None else kernels - base["counts"]["kernels"],
        bytes=touched,
        by_flops=1e3 * flops / rate,
        by_bytes=1e3 * touched / bandwidth,
        measured=1e3 * median(added),
    )
