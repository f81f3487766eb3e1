"""What canonicalizers did, as numbers to log: whether solves converged and how far warps move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lse_core.pointwise import PointwiseWarp
from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization
from lse_dec.solvers import Code

__all__ = ["SiteSummary", "as_scalars", "displacement", "displacement_map", "summarise"]


class SiteSummary(NamedTuple):
    """One site's answer to a batch.

    Attributes:
        displacement: mean distance of the warp from the identity, in shares of the picture's side; near
            zero the canonicalizer is not used.
        largest: the largest distance.
        slopes: least and greatest slope.
        residual: mean residual of the solves in log-slopes, None without a solve.
        converged: share of the samples whose solve converged, None without a solve.
        not_finite: samples whose update gave no finite value, None without a solve.
    """

    displacement: float
    largest: float
    slopes: tuple[float, float]
    residual: float | None = None
    converged: float | None = None
    not_finite: int | None = None


def displacement(found: Canonicalization, points: int = 33) -> Tensor:
    """Distance of the warp from the identity along each axis, at equal steps.

    Returns:
        (B, 2, points), axis x first; (B, 2, points * points), on a lattice, for coupled warps, whose axes
        depend on each other.
    """
    warp = found.warp
    u = torch.linspace(0.0, 1.0, points, device=warp.device, dtype=warp.dtype)
    if isinstance(warp, PointwiseWarp):
        even = torch.stack(torch.meshgrid(u, u, indexing="xy"), dim=-1)
        return (warp.lattice(points, points) - even).abs().flatten(1, 2).transpose(1, 2)
    return torch.stack([warp.x(u) - u, warp.y(u) - u], dim=1).abs()


def displacement_map(warp: SeparableWarp | PointwiseWarp, height: int, width: int) -> Tensor:
    """How far the warp moves every pixel of a picture, in pixels, (B, height, width)."""
    x, y = (torch.linspace(0.0, 1.0, n, device=warp.device, dtype=warp.dtype) for n in (width, height))
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 2)
    size = torch.tensor([width - 1, height - 1], device=warp.device, dtype=warp.dtype)
    with torch.no_grad():
        return ((warp(points) - points) * size).norm(dim=-1).view(-1, height, width)


def summarise(found: Canonicalization) -> SiteSummary:
    """Numbers for one `Canonicalization`, as `lse_dec.observe` collects them; waits for the device."""
    with torch.no_grad():
        away = displacement(found)
        slopes = _slopes(found.warp)
        summary = SiteSummary(
            float(away.mean()), float(away.max()), (float(slopes.min()), float(slopes.max()))
        )
        if found.solution is None:
            return summary
        codes, residual = found.solution.codes, found.solution.residual
        finite = codes != Code.NOT_FINITE
        return summary._replace(
            # failed solves are counted on their own: an infinite mean would say nothing of the others
            residual=float(residual[finite].mean()) if bool(finite.any()) else float("inf"),
            converged=float((codes == Code.CONVERGED).float().mean()),
            not_finite=int((~finite).sum()),
        )


def _slopes(warp: SeparableWarp | PointwiseWarp, cells: int = 32) -> Tensor:
    """All slopes along the axes; of a warp that is not separable, between the points of a lattice."""
    if isinstance(warp, SeparableWarp):
        return torch.cat([warp.x.slopes, warp.y.slopes], dim=1)
    at = warp.lattice(cells + 1, cells + 1)
    along_x, along_y = at[..., 0].diff(dim=2), at[..., 1].diff(dim=1)
    return cells * torch.cat([along_x.flatten(1), along_y.flatten(1)], dim=1)


def as_scalars(record: Mapping[str, Canonicalization], prefix: str = "lse/") -> dict[str, float]:
    """Flat names and numbers for any logger, for all sites of `lse_dec.observe`'s record.

    Example:
        with lse_dec.observe(adapted) as record:
            loss = criterion(adapted(images), labels)
        writer.log(as_scalars(record))
    """
    scalars: dict[str, float] = {}
    for site, found in record.items():
        summary = summarise(found)
        values = {
            "displacement": summary.displacement,
            "largest_displacement": summary.largest,
            "least_slope": summary.slopes[0],
            "greatest_slope": summary.slopes[1],
            "residual": summary.residual,
            "converged": summary.converged,
            "not_finite": summary.not_finite,
        }
        scalars.update({f"{prefix}{site}/{k}": float(v) for k, v in values.items() if v is not None})
    return scalars
