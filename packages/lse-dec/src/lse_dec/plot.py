"""Pictures of what the canonicalizers of an adapted model do, site by site.

Needs the extra: `pip install 'lse-dec[plot]'`. Nothing here touches pyplot's global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lse_core.errors import LSEError, ShapeError
from lse_core.moved import moved_names
from lse_core.plot import draw_grid, to_array  # says what to install where matplotlib is absent
from lse_core.resample import unscale
from lse_core.separable import SeparableWarp
from lse_dec.adapted import AdaptedModel
from lse_dec.backbones import IMAGE
from lse_dec.monitor import displacement_map
from lse_dec.observation import Observation, observe
from lse_dec.solvers import Code

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_sites", "view_sites"]

LINES, LINE = 13, "#ffb703"
CODES = {
    Code.CONVERGED: "converged",
    Code.STEPS_SPENT: "not yet converged",
    Code.NOT_FINITE: "not finite: identity kept",
}


def view_sites(model: AdaptedModel, x: Tensor) -> dict[str, Observation]:
    """Run `model` on images (B, C, H, W) and return what every site did, in order of execution.

    In the mode the model is in, without gradients; nothing stays behind in it.
    """
    with torch.no_grad(), observe(model) as views:
        model(x)
    return views


def plot_sites(
    model: AdaptedModel, x: Tensor, *, pictures: Tensor | None = None, names: Sequence[str] = ()
) -> Figure:
    """One row an image and site: what the warp does to the picture and to the map, and how it was found.

    Columns: the picture as it reaches the site, under the lines that are even in its canonical form, which
    is next; where there is a site within the model, its map before and after, the first three principal
    components over all images as colours (the same colours for the same features, in all images); the size
    of the displacement; the residual of the fixed point by step.

    Args:
        model: an adapted model.
        x: (B, C, H, W), images as the model takes them.
        pictures: (B, 1 or 3, H, W) within [0, 1], what to show for `x`; None stretches `x` itself.
        names: a name for each image.

    Raises:
        ShapeError: `pictures` or `names` do not fit `x`.
        LSEError: matplotlib is absent, or the model ran no site.
    """
    from matplotlib.figure import Figure

    pictures = _stretched(x) if pictures is None else pictures
    if pictures.shape[0] != x.shape[0] or (names and len(names) != x.shape[0]):
        raise ShapeError(f"{x.shape[0]} images need as many pictures ({pictures.shape[0]}) and names")
    size, views = (pictures.shape[2], pictures.shape[3]), view_sites(model, x)
    if not views:
        raise LSEError("no site of the model ran, so there is nothing to draw")
    sites = list(views)
    seen, canonical = _pictures(model, views, pictures.to(x.device).float())
    rows = [(i, site) for i in range(x.shape[0]) for site in sites]
    columns = 4 if sites == [IMAGE] else 6  # the map at the image is the picture
    figure = Figure(figsize=(2.6 * columns, 2.75 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    coloured = {site: _colours(views[site]) for site in sites if site != IMAGE}
    for row, (i, site) in zip(grid, rows, strict=True):
        view = views[site]
        warp = view.warp[i]
        _image(row[0], seen[site][i], f"{names[i] if names else f'image {i}'} at {site}")
        draw_grid(row[0], warp, size, lines=LINES, color=LINE)
        _image(row[1], canonical[site][i], "canonical picture")
        even = SeparableWarp.identity(1, device=warp.device, dtype=warp.dtype)
        draw_grid(row[1], even, size, lines=LINES, color=LINE)
        if site == IMAGE and columns == 6:
            _words(row[2], "the map is the picture")
            row[3].axis("off")
        elif site != IMAGE:
            before, after = coloured[site]
            h, w = view.features.shape[2:]
            _image(row[2], before[i], f"map, {view.features.shape[1]} channels, {h} x {w}")
            _image(row[3], after[i], "canonical map")
        _displacement(figure, row[-2], view, i, size)
        _residuals(row[-1], view, i, getattr(model.canonicalizers[site], "tol", None))
    return figure


def _stretched(x: Tensor) -> Tensor:
    """Any images as pictures of 1 or 3 channels within [0, 1]."""
    x = x.detach().float()
    x = x if x.shape[1] in (1, 3) else x.mean(1, keepdim=True)
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low).clamp_min(1e-12)


def _pictures(
    model: AdaptedModel, views: dict[str, Observation], pictures: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The pictures as they reach each site, warped by the sites before it, and as they leave it."""
    seen: dict[str, Tensor] = {}
    canonical: dict[str, Tensor] = {}
    done: list[str] = []
    for site, view in views.items():
        current = pictures
        for earlier in done:
            # in equivariant mode a stage's output is warped back, so only what lies within it sees it
            if model.mode == "invariant" or earlier == IMAGE or site.startswith(f"{earlier}."):
                current = unscale(current, views[earlier].warp)
        seen[site], canonical[site] = current, unscale(current, view.warp)
        done.append(site)
    return seen, canonical


def _colours(view: Observation) -> tuple[Tensor, Tensor]:
    """Maps (B, 3, h, w) within [0, 1] before and after: principal components; grey below 3 channels."""
    before = view.features.float()
    after = unscale(before, view.warp)
    if before.shape[1] < 3:
        before, after = before.mean(1, keepdim=True), after.mean(1, keepdim=True)
    else:
        rows = before.movedim(1, -1).flatten(0, -2)
        rows = rows[rows.isfinite().all(-1)]
        centre = rows.mean(0)
        # of the covariance, whose size does not grow with the images
        _, axes = torch.linalg.eigh((rows - centre).T @ (rows - centre))
        basis = axes[:, -3:].flip(-1)
        before, after = (((m.movedim(1, -1) - centre) @ basis).movedim(-1, 1) for m in (before, after))
    # a few pixels far out would leave the rest grey
    flat = before.movedim(1, 0).flatten(1)
    low, high = (
        torch.nanquantile(flat[:, :: max(1, flat.shape[1] // 100_000)], q, dim=1).view(1, -1, 1, 1)
        for q in (0.02, 0.98)
    )
    before, after = (((m - low) / (high - low).clamp_min(1e-12)).clamp(0.0, 1.0) for m in (before, after))
    return before.nan_to_num(0.0), after.nan_to_num(0.0)


def _image(axes: Axes, picture: Tensor, title: str) -> None:
    axes.imshow(to_array(picture.nan_to_num(0.0)), interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def _words(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, color="0.4", transform=axes.transAxes)
    axes.axis("off")


def _displacement(figure: Figure, axes: Axes, view: Observation, i: int, size: tuple[int, int]) -> None:
    away = displacement_map(view.warp[i], *size)[0].cpu()
    # a fixed least scale: otherwise rounding would be painted as if it were a warp
    shown = axes.imshow(away.numpy(), cmap="magma", vmin=0.0, vmax=max(1.0, float(away.max())))
    axes.set_title(f"displacement, mean {float(away.mean()):.1f}, max {float(away.max()):.1f} px", fontsize=9)
    axes.axis("off")
    figure.colorbar(shown, ax=axes, fraction=0.045)


def _residuals(axes: Axes, view: Observation, i: int, tol: float | None) -> None:
    """The residual by step; `tol` is what counts as converged, where the canonicalizer has such a number."""
    solution = view.solution
    if solution is None:
        kind = "separable" if isinstance(view.warp, SeparableWarp) else "coupled"
        _words(axes, f"no iteration ({kind} warp)")
        return
    trace = solution.residuals[:, i].float().cpu()
    steps = range(1, len(trace) + 1)
    axes.plot(steps, trace.clamp_min(1e-12).numpy(), marker="o", markersize=3, color="#3b6fb6")
    if tol:
        axes.axhline(tol, color="0.5", linewidth=0.8, linestyle="--", label=f"tolerance {tol:g}")
        axes.legend(fontsize=7, loc="upper right")
    axes.set_yscale("log")
    low = min(float(trace.nan_to_num(1.0).clamp_min(1e-8).min()), tol or 1.0)
    axes.set_ylim(0.5 * low, 3.0 * max(float(trace.nan_to_num(0.0, 0.0).max()), 2.0 * low))
    axes.set_xticks(list(steps) if len(trace) <= 12 else list(steps)[:: len(trace) // 6])
    axes.tick_params(labelsize=7)
    axes.set_xlabel("step", fontsize=8)
    axes.set_title(f"residual, {CODES[Code(int(solution.codes[i]))]}", fontsize=9)
    axes.grid(alpha=0.3)


__getattr__ = moved_names(__name__)
