"""What the canonicalizers of an adapted model do while it is measured.

Any model counts as adapted whose attribute `sites` maps names to modules with a tuple `observers`, which are
called with each answer: an object with `warp` and `solution`, as lse-dec's `Observation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lse_core.measuring.measurement import Site

__all__ = ["site_means", "watching"]

POINTS = 17  # a side of the lattice on which displacements are averaged

Sums = dict[str, list[float]]
"""By site: the sum of displacements in pixels, their number, the sum of residuals, their number."""


@contextmanager
def watching(module: nn.Module, size: tuple[int, int] | None) -> Iterator[Sums]:
    """Sums over all images that the model sees while the block runs; empty for models without sites.

    Args:
        module: any model.
        size: (height, width) of its input in pixels; None counts displacements in shares of the picture.
    """
    sums: Sums = {}
    given = getattr(module, "sites", None)
    sites = {n: s for n, s in given.items() if hasattr(s, "observers")} if isinstance(given, Mapping) else {}
    before = {name: site.observers for name, site in sites.items()}
    for name, site in sites.items():
        sums[name] = [0.0] * 4
        site.observers = (*site.observers, _adder(sums[name], size))
    try:
        yield sums
    finally:
        for name, site in sites.items():
            site.observers = before[name]


def _adder(sums: list[float], size: tuple[int, int] | None) -> Any:
    def add(observation: Any) -> None:
        warp, solution = observation.warp, observation.solution
        u = torch.linspace(0, 1, POINTS, device=warp.device, dtype=warp.dtype)
        points = torch.stack(torch.meshgrid(u, u, indexing="xy"), dim=-1).view(-1, 2)
        sides = points.new_tensor([size[1] - 1, size[0] - 1] if size else [1, 1])
        with torch.no_grad():
            away = ((warp(points) - points) * sides).norm(dim=-1).mean(-1).double()
        away = away[away.isfinite()]
        sums[0] += float(away.sum())
        sums[1] += len(away)
        if solution is not None:
            residual = solution.residual.detach().double()
            residual = residual[residual.isfinite()]
            sums[2] += float(residual.sum())
            sums[3] += len(residual)

    return add


def site_means(rows: Iterable[Mapping[str, list[float]]]) -> tuple[Site, ...]:
    """Means over the sums of all pictures."""
    total: Sums = {}
    for row in rows:
        for name, values in row.items():
            total[name] = [a + b for a, b in zip(total.get(name, [0.0] * 4), values, strict=True)]
    return tuple(
        Site(name=name, displacement_pixels=away / count, residual=residual / solves if solves else None)
        for name, (away, count, residual, solves) in total.items()
        if count
    )
