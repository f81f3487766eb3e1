"""Numbers to log about canonicalizers: whether their solves converged, and how far their warps move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lse_core.separable import SeparableWarp
from lse_dec.canonicalizers.base import Canonicalization, Warp, places
from lse_dec.observation import Observation
from lse_dec.solvers import Code

__all__ = ["SiteSummary", "as_scalars", "displacement", "displacement_map", "summaries", "summarise"]

Answer = Observation | Canonicalization

NAMES = (
    *("displacement", "largest_displacement", "least_slope", "greatest_slope"),
    *("residual", "converged", "not_finite"),
)
"""What `as_scalars` calls the numbers of a `SiteSummary`, in their order."""


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


def displacement(found: Answer, points: int = 33) -> Tensor:
    """Distance of the warp from the identity along each axis, at equal steps.

    Returns:
        (B, 2, points), axis x first; (B, 2, points * points), on a lattice, for coupled warps, whose axes
        depend on each other.
    """
    warp = found.warp
    u = torch.linspace(0.0, 1.0, points, device=warp.device, dtype=warp.dtype)
    even = places(SeparableWarp.identity(device=u.device, dtype=u.dtype), u, isinstance(warp, SeparableWarp))
    return (places(warp, u) - even).abs()


def displacement_map(warp: Warp, height: int, width: int) -> Tensor:
    """How far the warp moves every pixel of a picture, in pixels, (B, height, width)."""
    x, y = (torch.linspace(0.0, 1.0, n, device=warp.device, dtype=warp.dtype) for n in (width, height))
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 2)
    size = torch.tensor([width - 1, height - 1], device=warp.device, dtype=warp.dtype)
    with torch.no_grad():
        return ((warp(points) - points) * size).norm(dim=-1).view(-1, height, width)


def summaries(record: Mapping[str, Answer]) -> dict[str, SiteSummary]:
    """Numbers for every site of a record, as `lse_dec.observe` fills it.

    Waits for the device once, whatever the number of sites.
    """
    if not record:
        return {}
    with torch.no_grad():
        found = [_numbers(answer) for answer in record.values()]
        # one device, and a dtype that holds them all
        rows = torch.stack([row.to(found[0].device, torch.float64) for row in found]).tolist()
    told = {}
    for (name, answer), (mean, largest, least, greatest, *solve) in zip(record.items(), rows, strict=True):
        told[name] = SiteSummary(mean, largest, (least, greatest))
        if answer.solution is not None:
            told[name] = told[name]._replace(residual=solve[0], converged=solve[1], not_finite=int(solve[2]))
    return told


def summarise(answer: Answer) -> SiteSummary:
    """As `summaries`, for one answer."""
    return summaries({"": answer})[""]


def _numbers(answer: Answer) -> Tensor:
    """The fields of a `SiteSummary` in their order, (7,); those of the solve are 0 where there is none."""
    away, slopes = displacement(answer), _slopes(answer.warp)
    numbers = [away.mean(), away.max(), slopes.min(), slopes.max()]
    if answer.solution is None:
        return torch.nn.functional.pad(torch.stack(numbers), (0, 3))
    codes, residual = answer.solution.codes, answer.solution.residual
    finite = codes != Code.NOT_FINITE
    count = finite.sum()
    # failed solves are counted on their own: an infinite mean would say nothing of the others
    mean = torch.where(finite, residual, 0.0).sum() / count
    numbers += [torch.where(count > 0, mean, torch.inf), (codes == Code.CONVERGED).float().mean()]
    return torch.stack([*(number.to(away.dtype) for number in numbers), (~finite).sum().to(away.dtype)])


def _slopes(warp: Warp, cells: int = 32) -> Tensor:
    """All slopes along the axes; of a warp that is not separable, between the points of a lattice."""
    if isinstance(warp, SeparableWarp):
        return torch.cat([warp.x.slopes, warp.y.slopes], dim=1)
    at = warp.lattice(cells + 1, cells + 1)
    along_x, along_y = at[..., 0].diff(dim=2), at[..., 1].diff(dim=1)
    return cells * torch.cat([along_x.flatten(1), along_y.flatten(1)], dim=1)


def as_scalars(record: Mapping[str, Answer], prefix: str = "lse/") -> dict[str, float]:
    """Flat names and numbers for any logger, for all sites of a record; waits for the device once.

    Example:
        with lse_dec.observe(adapted) as record:
            loss = criterion(adapted(images), labels)
        writer.log(as_scalars(record))
    """
    scalars: dict[str, float] = {}
    for site, (mean, largest, slopes, *solve) in summaries(record).items():
        values = [mean, largest, *slopes, *solve]
        scalars |= {
            f"{prefix}{site}/{k}": float(v) for k, v in zip(NAMES, values, strict=True) if v is not None
        }
    return scalars
